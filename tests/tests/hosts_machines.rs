//! The hosts themselves: what the other tests on hosts rely on.

use anyhow::Result;
use berth_tests::hosts::{OTHER, SHARE, TEST};
use berth_tests::{Hosts, until};

#[test]
fn hosts_are_machines_of_their_own() -> Result<()> {
    Hosts::run(2, |hosts| async move {
        let names = hosts.exec_all("hostname; systemctl is-system-running")?;
        assert_eq!(names, ["host1\nrunning", "host2\nrunning"]);
        assert!(hosts.succeeds(1, "mountpoint -q /mnt/test && grep -q cgroup2 /proc/mounts"));

        std::fs::write(hosts.share().join("word"), "shared")?;
        let told = "synced, then not";
        hosts.write(1, "/root/told", told)?;
        assert_eq!(
            hosts.exec(1, &format!("sync; cat {SHARE}/word /root/told"))?,
            format!("shared{told}")
        );

        // A power cut takes what was not written, and nothing else.
        let boot = "cat /proc/sys/kernel/random/boot_id";
        let before = hosts.exec_all(boot)?;
        hosts.cut(1)?;
        assert!(!hosts.succeeds(1, "true"));
        hosts.boot(1)?;
        assert_eq!(hosts.exec(1, "cat /root/told")?, told);
        let after = hosts.exec_all(boot)?;
        assert!(before[0] != after[0] && before[1] == after[1]);

        // The test's second address can be lost apart from the first.
        let reach = |address: &str| format!("timeout 5 ip route get {address} | grep -q eth0");
        hosts.lose_other(2, true)?;
        assert!(hosts.succeeds(2, &reach(TEST)) && !hosts.succeeds(2, &reach(OTHER)));
        hosts.lose_other(2, false)?;
        assert!(hosts.succeeds(2, &reach(OTHER)));

        // The test is on their network, so it meets them without further ado; and a cable can be pulled.
        let listener = tokio::net::TcpListener::bind((TEST, 0)).await?;
        let port = listener.local_addr()?.port();
        let dial = format!("timeout 5 bash -c '</dev/tcp/{TEST}/{port}'");
        assert!(hosts.succeeds(2, &dial));
        hosts.link_down(2)?;
        assert!(!hosts.succeeds(2, "true"));
        hosts.link_up(2)?;
        until("the host to be back on the network", || async {
            Ok((hosts.succeeds(2, &dial), "not yet"))
        })
        .await
    })
}
