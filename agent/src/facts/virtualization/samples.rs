//! Machines as they are met: what they show, and what they are.

use std::fs;
use std::path::Path;
use std::process::Command;

use super::*;

/// Name of the sample, files with their content, the processor's word, what it is.
type Sample = (
    &'static str,
    &'static [(&'static str, &'static str)],
    Option<&'static str>,
    Option<&'static str>,
);

const PRODUCT: &str = DMI[0];
const VENDOR: &str = DMI[1];
const BOARD: &str = DMI[2];
const BIOS: &str = DMI[3];
const VERSION: &str = DMI[4];
const KVM: Option<&str> = Some("KVMKVMKVM");
const HYPER_V: Option<&str> = Some("Microsoft Hv");

const SAMPLES: [Sample; 40] = [
    (
        "a server",
        &[
            (VENDOR, "Dell Inc.\n"),
            (PRODUCT, "PowerEdge R760\n"),
            (UML, "vendor_id\t: GenuineIntel\nflags\t\t: fpu vmx\n"),
        ],
        None,
        None,
    ),
    (
        "a laptop of Microsoft's",
        &[
            (VENDOR, "Microsoft Corporation\n"),
            (PRODUCT, "Surface Laptop 5\n"),
        ],
        None,
        None,
    ),
    (
        "QEMU with KVM",
        &[
            (VENDOR, "QEMU\n"),
            (PRODUCT, "Standard PC (Q35 + ICH9, 2009)\n"),
        ],
        KVM,
        Some("kvm"),
    ),
    (
        "QEMU without KVM",
        &[(VENDOR, "QEMU\n")],
        Some("TCGTCGTCGTCG"),
        Some("qemu"),
    ),
    (
        "QEMU on ARM, told by the firmware",
        &[
            (VENDOR, "QEMU\n"),
            (PRODUCT, "KVM Virtual Machine\n"),
            (BIOS, "EFI Development Kit II / OVMF\n"),
        ],
        None,
        Some("kvm"),
    ),
    (
        "KVM with Hyper-V's enlightenments",
        &[(VENDOR, "QEMU\n")],
        Some("Linux KVM Hv"),
        Some("kvm"),
    ),
    (
        "QEMU that says it is Hyper-V",
        &[(VENDOR, "QEMU\n")],
        HYPER_V,
        Some("qemu"),
    ),
    ("no firmware at all, as Firecracker", &[], KVM, Some("kvm")),
    (
        "OpenStack on ARM",
        &[(PRODUCT, "OpenStack Nova\n")],
        None,
        Some("kvm"),
    ),
    (
        "KubeVirt",
        &[(VENDOR, "KubeVirt\n"), (PRODUCT, "None\n")],
        None,
        Some("kvm"),
    ),
    (
        "VMware",
        &[
            (VENDOR, "VMware, Inc.\n"),
            (PRODUCT, "VMware Virtual Platform\n"),
        ],
        Some("VMwareVMware"),
        Some("vmware"),
    ),
    (
        "VMware whose processor is hidden",
        &[(PRODUCT, "VMware20,1\n")],
        None,
        Some("vmware"),
    ),
    (
        "VirtualBox over KVM",
        &[
            (VENDOR, "innotek GmbH\n"),
            (PRODUCT, "VirtualBox\n"),
            (BOARD, "Oracle Corporation\n"),
        ],
        KVM,
        Some("oracle"),
    ),
    (
        "Xen, as a guest with its own kernel",
        &[
            (VENDOR, "Xen\n"),
            (PRODUCT, "HVM domU\n"),
            ("sys/hypervisor/type", "xen\n"),
        ],
        Some("XenVMMXenVMM"),
        Some("xen"),
    ),
    (
        "Xen, paravirtual",
        &[("proc/xen/", ""), (FEATURES, "00000000\n")],
        None,
        Some("xen"),
    ),
    (
        "Xen's own domain is the hardware",
        &[
            (VENDOR, "Dell Inc.\n"),
            ("proc/xen/", ""),
            (FEATURES, "00002705f0800\n"),
        ],
        None,
        None,
    ),
    (
        "Xen's own domain, told by its capabilities",
        &[(CAPABILITIES, "control_d\n")],
        None,
        None,
    ),
    (
        "Xen's own domain, nested in KVM",
        &[(CAPABILITIES, "control_d\n")],
        KVM,
        Some("kvm"),
    ),
    (
        "Hyper-V",
        &[
            (VENDOR, "Microsoft Corporation\n"),
            (PRODUCT, "Virtual Machine\n"),
            (VERSION, "Hyper-V UEFI Release v4.1\n"),
        ],
        HYPER_V,
        Some("microsoft"),
    ),
    (
        "Azure, which does not say Hyper-V",
        &[
            (VENDOR, "Microsoft Corporation\n"),
            (PRODUCT, "Virtual Machine\n"),
            (VERSION, "7.0\n"),
        ],
        HYPER_V,
        Some("microsoft"),
    ),
    (
        "AWS Nitro",
        &[(VENDOR, "Amazon EC2\n"), (PRODUCT, "m7i.large\n")],
        KVM,
        Some("amazon"),
    ),
    (
        "AWS metal",
        &[(VENDOR, "Amazon EC2\n"), (PRODUCT, "c5.metal\n")],
        None,
        None,
    ),
    (
        "AWS metal with a size",
        &[(VENDOR, "Amazon EC2\n"), (PRODUCT, "m7i.metal-24xl\n")],
        None,
        None,
    ),
    (
        "AWS Xen",
        &[(VENDOR, "Xen\n"), (PRODUCT, "HVM domU\n")],
        HYPER_V,
        Some("xen"),
    ),
    (
        "Google",
        &[(VENDOR, "Google\n"), (PRODUCT, "Google Compute Engine\n")],
        KVM,
        Some("google"),
    ),
    (
        "a hypervisor that nobody knows",
        &[],
        Some("jailhouse"),
        Some("vm-other"),
    ),
    (
        "user-mode Linux in a virtual machine",
        &[(
            UML,
            "processor\t: 0\nvendor_id\t: User Mode Linux\nmodel name\t: UML\n",
        )],
        KVM,
        Some("uml"),
    ),
    (
        "Docker on a virtual machine",
        &[(".dockerenv", ""), (VENDOR, "QEMU\n")],
        KVM,
        Some("docker"),
    ),
    (
        "systemd-nspawn",
        &[
            ("run/host/container-manager", "systemd-nspawn\n"),
            (".dockerenv", ""),
        ],
        KVM,
        Some("systemd-nspawn"),
    ),
    (
        "Podman",
        &[("run/.containerenv", "engine=\"podman\"\n")],
        None,
        Some("podman"),
    ),
    (
        "LXC, told by the first process",
        &[("proc/1/environ", "PATH=/bin\0container=lxc\0")],
        None,
        Some("lxc"),
    ),
    (
        "an image that calls itself OCI, in Docker",
        &[("run/systemd/container", "oci\n"), (".dockerenv", "")],
        KVM,
        Some("docker"),
    ),
    (
        "an image that calls itself OCI, elsewhere",
        &[("run/systemd/container", "oci\n")],
        KVM,
        Some("container-other"),
    ),
    (
        "a namespace of control groups, version 2",
        &[
            ("sys/fs/cgroup/cgroup.controllers", ""),
            ("sys/fs/cgroup/cgroup.events", ""),
            ("sys/fs/cgroup/cgroup.type", ""),
            ("sys/kernel/cgroup/features", ""),
        ],
        None,
        Some("container-other"),
    ),
    (
        "a namespace of control groups, version 2 of an older kernel",
        &[
            ("sys/fs/cgroup/cgroup.controllers", ""),
            ("sys/fs/cgroup/cgroup.events", ""),
        ],
        None,
        Some("container-other"),
    ),
    (
        "the root of control groups, version 2, with a group that is called systemd",
        &[
            ("sys/fs/cgroup/cgroup.controllers", ""),
            ("sys/fs/cgroup/systemd/", ""),
            ("sys/kernel/cgroup/features", ""),
        ],
        None,
        None,
    ),
    (
        "a namespace of control groups, version 1",
        &[("sys/fs/cgroup/systemd/", "")],
        None,
        Some("container-other"),
    ),
    (
        "the root of control groups, version 1",
        &[("sys/fs/cgroup/systemd/release_agent", "")],
        None,
        None,
    ),
    (
        "WSL",
        &[(OS_RELEASE, "5.15.90.1-microsoft-standard-WSL2\n")],
        HYPER_V,
        Some("wsl"),
    ),
    (
        "ARM with a device tree",
        &[(DEVICE_TREE, "linux,kvm\0")],
        None,
        Some("kvm"),
    ),
];

fn clues(files: &[(&str, &str)], cpuid: Option<&str>) -> Clues {
    let root = tempfile::tempdir().unwrap();
    for (name, text) in files {
        let path = root.path().join(name);
        if name.ends_with('/') {
            fs::create_dir_all(&path).unwrap();
            continue;
        }
        fs::create_dir_all(path.parent().unwrap()).unwrap();
        fs::write(&path, text).unwrap();
    }
    Clues::read(root.path(), cpuid.map(str::to_owned))
}

#[test]
fn machines_are_what_they_are() {
    for (name, files, cpuid, expected) in SAMPLES {
        assert_eq!(clues(files, cpuid).name(), expected, "{name}");
    }
}

/// A record of the firmware with or without the bit of a virtual machine.
fn smbios(bit: bool) -> Vec<u8> {
    let mut record = vec![0; 24];
    record[1] = 24;
    record[19] = if bit { 1 << 4 } else { 0 };
    record
}

#[test]
fn the_firmware_s_own_word_wins_over_its_names() {
    let amazon = |product| clues(&[(VENDOR, "Amazon EC2"), (PRODUCT, product)], None);
    let said = |clues: Clues, bit| {
        Clues {
            smbios: smbios(bit),
            ..clues
        }
        .name()
    };
    assert_eq!(said(amazon("c5.metal"), true), Some("amazon"));
    assert_eq!(said(amazon("c5.large"), false), None);
    assert_eq!(said(clues(&[], None), true), Some("vm-other"));
    let short = Clues {
        smbios: vec![0, 18],
        ..amazon("c5.large")
    };
    assert_eq!(short.name(), Some("amazon"));
}

#[test]
fn this_machine_is_what_systemd_says() {
    // Skipped where systemd is not installed.
    let Ok(said) = Command::new("systemd-detect-virt").output() else {
        return;
    };
    let said = String::from_utf8(said.stdout).unwrap();
    let ours = Clues::read(Path::new("/"), cpuid()).name();
    assert_eq!(ours.unwrap_or("none"), said.trim());
}
