//! How single facts are read.

use std::path::Path;

use berth_model::node::NodeKind;

/// Makers of virtual machines, as firmware names them.
const VIRTUAL_VENDORS: [&str; 12] = [
    "QEMU",
    "KVM",
    "VMware",
    "innotek",
    "VirtualBox",
    "Xen",
    "Bochs",
    "Parallels",
    "BHYVE",
    "Amazon EC2",
    "Google Compute Engine",
    "Microsoft Corporation Virtual",
];

/// Physical or virtual, as `systemd-detect-virt` would say; containers count as virtual.
pub(super) fn kind(root: &Path) -> NodeKind {
    let read = |path: &str| std::fs::read_to_string(root.join(path)).unwrap_or_default();
    let flags = read("proc/cpuinfo");
    let hypervisor = flags
        .lines()
        .filter(|line| line.starts_with("flags") || line.starts_with("Features"))
        .any(|line| line.split_whitespace().any(|flag| flag == "hypervisor"));
    let container = ["run/.containerenv", ".dockerenv", "run/systemd/container"]
        .iter()
        .any(|path| root.join(path).exists());
    let firmware = ["sys_vendor", "product_name", "board_vendor", "bios_vendor"]
        .map(|name| read(&format!("sys/class/dmi/id/{name}")))
        .join(" ");
    // Microsoft makes hardware too: only its virtual machine is named so.
    let firmware = firmware.replace(
        "Microsoft Corporation\n Virtual",
        "Microsoft Corporation Virtual",
    );
    let vendor = VIRTUAL_VENDORS
        .iter()
        .any(|vendor| firmware.contains(vendor));
    let uml = flags.contains("User Mode Linux");
    if hypervisor || container || vendor || uml {
        NodeKind::Virtual
    } else {
        NodeKind::Physical
    }
}

/// Bytes of memory: the machine's, or less where a control group says so ("max" says nothing).
pub(super) fn memory(meminfo: &str, limits: &[String]) -> u64 {
    let kib = meminfo.lines().find_map(|line| {
        line.strip_prefix("MemTotal:")?
            .split_whitespace()
            .next()?
            .parse()
            .ok()
    });
    let total = u64::saturating_mul(kib.unwrap_or(0), 1024);
    limits
        .iter()
        .filter_map(|limit| limit.parse().ok())
        .fold(total, u64::min)
}

/// Bytes of the file system on which a path lies.
pub(super) fn disk(path: &Path) -> u64 {
    rustix::fs::statvfs(path).map_or(0, |stat| stat.f_blocks.saturating_mul(stat.f_frsize))
}

/// PRETTY_NAME of an os-release file.
pub(super) fn distribution(os_release: &str) -> String {
    os_release
        .lines()
        .find_map(|line| line.strip_prefix("PRETTY_NAME="))
        .map_or("unknown", |name| name.trim_matches('"'))
        .to_owned()
}

#[cfg(test)]
mod tests {
    use std::fs;

    use super::*;

    fn machine(files: &[(&str, &str)]) -> NodeKind {
        let root = tempfile::tempdir().unwrap();
        for (path, text) in files {
            let path = root.path().join(path);
            fs::create_dir_all(path.parent().unwrap()).unwrap();
            fs::write(path, text).unwrap();
        }
        kind(root.path())
    }

    #[test]
    fn virtual_machines_are_told_by_cpu_or_firmware() {
        let vendor = "sys/class/dmi/id/sys_vendor";
        let product = "sys/class/dmi/id/product_name";
        assert_eq!(
            machine(&[("proc/cpuinfo", "flags : fpu hypervisor\n")]),
            NodeKind::Virtual
        );
        assert_eq!(machine(&[(vendor, "QEMU\n")]), NodeKind::Virtual);
        assert_eq!(
            machine(&[
                (vendor, "Microsoft Corporation\n"),
                (product, "Virtual Machine\n")
            ]),
            NodeKind::Virtual
        );
        assert_eq!(
            machine(&[(vendor, "Microsoft Corporation\n"), (product, "Surface\n")]),
            NodeKind::Physical
        );
        assert_eq!(machine(&[(".dockerenv", "")]), NodeKind::Virtual);
        assert_eq!(
            machine(&[
                ("proc/cpuinfo", "flags : fpu vme\n"),
                (vendor, "Dell Inc.\n")
            ]),
            NodeKind::Physical
        );
    }

    #[test]
    fn memory_is_what_the_machine_or_the_control_group_has() {
        let meminfo = "MemTotal:        2048 kB\nMemFree: 1 kB\n";
        assert_eq!(memory(meminfo, &["max".into(), String::new()]), 2 << 20);
        assert_eq!(memory(meminfo, &["1048576".into()]), 1 << 20);
        assert_eq!(memory(meminfo, &["9223372036854771712".into()]), 2 << 20);
        assert_eq!(memory("", &[]), 0);
    }

    #[test]
    fn the_distribution_is_its_pretty_name() {
        assert_eq!(
            distribution("NAME=x\nPRETTY_NAME=\"Debian 12\"\n"),
            "Debian 12"
        );
        assert_eq!(distribution(""), "unknown");
    }
}
