//! Input and output, the command and the driver.

use berth_model::instance::{InstanceSpec, Phase, Reason};
use berth_model::job::{Piece, ShardInput};

use super::{ID, MODULE, blob, file, outputs, script, served, stopped, task};
use crate::coordinator::Coordinator;
use crate::node::{Node, order};
use crate::wait::until_true;

#[tokio::test(flavor = "multi_thread")]
async fn a_command_gets_its_input_and_leaves_its_output() {
    let coordinator = Coordinator::start().await;
    let package = script(
        &coordinator,
        "echo begin $BERTH_JOB_INDEX $BERTH_INSTANCE\ntr a-z A-Z < \"$BERTH_JOB_INPUT\" > \"$BERTH_JOB_OUTPUT\"\n",
    );
    // Parts of one blob and another, of which a transfer breaks off.
    let mut first = blob(&coordinator, "", b"xxone\ntwo\nyy");
    (first.offset, first.bytes) = (2, 8);
    let long = "three\n".repeat(1000);
    let second = blob(&coordinator, "", long.as_bytes());
    let empty = Piece {
        bytes: 0,
        ..second.clone()
    };
    coordinator.with(|state| state.fetch_limit = Some(4000));
    coordinator.desire(
        order(1),
        &[task(&package, file(vec![first, empty, second]))],
    );
    let node = Node::running(&coordinator);
    let done = stopped(&coordinator).await;
    assert_eq!(
        (done.reason.clone(), done.start, done.address),
        (Some(Reason::Completed), 1, None)
    );
    let expected = format!("ONE\nTWO\n{}", long.to_uppercase());
    let outputs = outputs(&coordinator);
    assert_eq!(outputs.len(), 1);
    let (task, blob, bytes) = &outputs[0];
    assert_eq!(
        (task.as_str(), String::from_utf8_lossy(bytes).as_ref()),
        (ID, expected.as_str())
    );
    let output = done.output.unwrap();
    assert_eq!(
        (output.blob.to_string(), output.bytes, output.folder),
        (blob.clone(), bytes.len() as u64, false)
    );
    until_true("its line", || !coordinator.lines(ID, "begin").is_empty()).await;
    assert_eq!(coordinator.lines(ID, "begin"), [format!("begin 2 {ID}")]);
    let ranges = coordinator.with(|state| state.ranges.clone());
    assert!(
        ranges.contains(&(2, 8)) && ranges.contains(&(4000, 2000)),
        "{ranges:?}"
    );
    let phases: Vec<Phase> = coordinator.with(|state| {
        let ours = state
            .history
            .iter()
            .filter(|status| status.id.to_string() == ID);
        ours.map(|status| status.phase).collect()
    });
    assert!(!phases.contains(&Phase::Backoff), "{phases:?}");
    // Told to go, it goes, with all of its files.
    coordinator.desire(order(2), &[]);
    coordinator.forgotten(ID).await;
    assert!(!node.data().join("instances").join(ID).exists());
}

#[tokio::test(flavor = "multi_thread")]
async fn a_folder_goes_in_and_a_folder_comes_out() {
    let coordinator = Coordinator::start().await;
    let package = script(
        &coordinator,
        "cp -r \"$BERTH_JOB_INPUT\" \"$BERTH_JOB_OUTPUT\"\nln -s sub/b.txt \"$BERTH_JOB_OUTPUT/link\"\n",
    );
    let pieces = vec![
        blob(&coordinator, "a.txt", b"one"),
        blob(&coordinator, "sub/b.txt", b"two"),
        blob(&coordinator, "sub/empty", b""),
    ];
    let input = ShardInput {
        folder: true,
        pieces,
    };
    coordinator.desire(order(1), &[task(&package, input)]);
    let _node = Node::running(&coordinator);
    let done = stopped(&coordinator).await;
    assert_eq!(done.reason, Some(Reason::Completed), "{done:?}");
    assert!(done.output.unwrap().folder);
    let (_, _, archive) = outputs(&coordinator).remove(0);
    let tar = zstd::decode_all(&archive[..]).unwrap();
    let mut found = Vec::new();
    for entry in tar::Archive::new(&tar[..]).entries().unwrap() {
        let mut entry = entry.unwrap();
        let mut text = String::new();
        std::io::Read::read_to_string(&mut entry, &mut text).unwrap();
        let header = entry.header();
        assert_eq!(
            (
                header.mtime().unwrap(),
                header.uid().unwrap(),
                header.gid().unwrap()
            ),
            (0, 0, 0)
        );
        found.push((entry.path().unwrap().to_string_lossy().into_owned(), text));
    }
    let expected = [
        ("a.txt", "one"),
        ("link", ""),
        ("sub/", ""),
        ("sub/b.txt", "two"),
        ("sub/empty", ""),
    ];
    assert_eq!(
        found,
        expected.map(|(name, text)| (name.to_owned(), text.to_owned()))
    );
}

#[tokio::test(flavor = "multi_thread")]
async fn the_driver_posts_rows_to_the_module_and_keeps_their_order() {
    let coordinator = Coordinator::start().await;
    let package = served(&coordinator, MODULE);
    let rows: String = (0..50)
        .map(|i| format!("\"{}\"\n", "x".repeat(i)))
        .collect();
    let input = file(vec![blob(&coordinator, "", rows.as_bytes())]);
    coordinator.desire(order(1), &[task(&package, input)]);
    let _node = Node::running(&coordinator);
    let done = stopped(&coordinator).await;
    assert_eq!(done.reason, Some(Reason::Completed), "{done:?}");
    let (_, _, bytes) = outputs(&coordinator).remove(0);
    let expected: String = (0..50)
        .map(|i| format!("{{\"text\":\"{}\",\"length\":{i}}}\n", "x".repeat(i)))
        .collect();
    assert_eq!(String::from_utf8(bytes).unwrap(), expected);
    until_true("the driver's last line", || {
        !coordinator.lines(ID, "done: 50 rows").is_empty()
    })
    .await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_bad_row_and_a_module_that_dies_are_told_apart() {
    let coordinator = Coordinator::start().await;
    let package = served(&coordinator, MODULE);
    let input = file(vec![blob(&coordinator, "", b"\"a\"\n\"b\"\n17\n")]);
    coordinator.desire(order(1), &[task(&package, input)]);
    let _node = Node::running(&coordinator);
    let refused = stopped(&coordinator).await;
    let exited = |process: &str, code| Reason::Exited {
        process: process.to_owned(),
        code,
    };
    assert_eq!(refused.reason, Some(exited("driver", 5)));
    let told = refused.last_lines.join("\n");
    assert!(
        told.contains("row 3 of")
            && told.contains("400: not a text")
            && told.contains("begins: 17"),
        "{told}"
    );
    let crash = file(vec![blob(&coordinator, "", b"\"crash\"\n")]);
    let second = InstanceSpec {
        id: "score.1.2.2".parse().unwrap(),
        ..task(&package, crash)
    };
    coordinator.desire(order(2), &[second]);
    let crashed = coordinator.phase("score.1.2.2", Phase::Stopped).await;
    assert_eq!(crashed.reason, Some(exited("module", 9)));
    assert!(
        crashed.last_lines.contains(&"goodbye".to_owned()),
        "{crashed:?}"
    );
    assert!(outputs(&coordinator).is_empty());
}

#[tokio::test(flavor = "multi_thread")]
async fn code_0_without_an_output_and_a_name_that_leads_out_are_failures() {
    let coordinator = Coordinator::start().await;
    let package = script(&coordinator, "exit 0\n");
    let evil = InstanceSpec {
        id: "evil.1.0.1".parse().unwrap(),
        ..task(
            &package,
            ShardInput {
                folder: true,
                pieces: vec![blob(&coordinator, "../../evil", b"x")],
            },
        )
    };
    coordinator.desire(order(1), &[task(&package, file(vec![])), evil]);
    let node = Node::running(&coordinator);
    let failed = stopped(&coordinator).await.reason.unwrap().to_string();
    assert!(
        failed.contains("exited with code 0 but left nothing at BERTH_JOB_OUTPUT"),
        "{failed}"
    );
    let refused = coordinator.phase("evil.1.0.1", Phase::Stopped).await;
    let told = refused.reason.unwrap().to_string();
    assert!(
        told.contains("\"../../evil\"") && refused.start == 0,
        "{told}"
    );
    assert!(!node.data().join("instances/evil").exists());
}

#[tokio::test(flavor = "multi_thread")]
async fn what_the_coordinator_or_the_configuration_does_not_take_is_told() {
    let coordinator = Coordinator::start().await;
    coordinator.with(|state| state.output_refusal = Some("attempt 2 is the current one".into()));
    let small = script(&coordinator, "echo out > \"$BERTH_JOB_OUTPUT\"\n");
    let large = script(
        &coordinator,
        "head -c 5000000 /dev/zero > \"$BERTH_JOB_OUTPUT\"\n",
    );
    let second = InstanceSpec {
        id: "large.1.0.1".parse().unwrap(),
        ..task(&large, file(vec![]))
    };
    coordinator.desire(order(1), &[task(&small, file(vec![])), second]);
    let _node = Node::running(&coordinator);
    let refused = stopped(&coordinator).await.reason.unwrap().to_string();
    assert!(
        refused.contains("does not take it: attempt 2 is the current one"),
        "{refused}"
    );
    let large = coordinator.phase("large.1.0.1", Phase::Stopped).await;
    let told = large.reason.unwrap().to_string();
    assert!(
        told.contains("more than 4MiB") && told.contains("max_output"),
        "{told}"
    );
}
