//! What a machine runs in, decided as `systemd-detect-virt` decides it, in its words.

use std::collections::BTreeMap;
use std::path::Path;

#[cfg(test)]
mod samples;

/// Files whose first line is read.
const LINES: [&str; 15] = [
    DMI[0],
    DMI[1],
    DMI[2],
    DMI[3],
    DMI[4],
    "sys/hypervisor/type",
    FEATURES,
    CAPABILITIES,
    DEVICE_TREE,
    COMPATIBLE,
    OS_RELEASE,
    "run/host/container-manager",
    "run/systemd/container",
    "proc/sysinfo",
    UML,
];

/// Names of the firmware, in the order in which they are asked: the product first, to tell KVM over QEMU.
const DMI: [&str; 5] = [
    "sys/class/dmi/id/product_name",
    "sys/class/dmi/id/sys_vendor",
    "sys/class/dmi/id/board_vendor",
    "sys/class/dmi/id/bios_vendor",
    "sys/class/dmi/id/product_version",
];

const FEATURES: &str = "sys/hypervisor/properties/features";
const CAPABILITIES: &str = "proc/xen/capabilities";
const DEVICE_TREE: &str = "proc/device-tree/hypervisor/compatible";
const COMPATIBLE: &str = "proc/device-tree/compatible";
const OS_RELEASE: &str = "proc/sys/kernel/osrelease";
const UML: &str = "proc/cpuinfo";

/// Files of which only the presence counts.
const MARKS: [&str; 14] = [
    "proc/vz",
    "proc/bc",
    "proc/xen",
    "run/.containerenv",
    ".dockerenv",
    "proc/device-tree/ibm,partition-name",
    "proc/device-tree/hmc-managed?",
    "proc/device-tree/chosen/qemu,graphic-width",
    "sys/fs/cgroup/cgroup.events",
    "sys/fs/cgroup/cgroup.type",
    "sys/fs/cgroup/cgroup.controllers",
    "sys/kernel/cgroup/features",
    "sys/fs/cgroup/systemd",
    "sys/fs/cgroup/systemd/release_agent",
];

/// Bit of a Xen domain's features: it is the one that owns the hardware.
const XEN_DOM0: u64 = 1 << 11;

/// Everything that is looked at.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub(super) struct Clues {
    /// Texts by path.
    lines: BTreeMap<&'static str, String>,
    /// Paths that exist.
    marks: Vec<&'static str>,
    /// What the processor says of a hypervisor: none without one, else the hypervisor's signature.
    cpuid: Option<String>,
    /// SMBIOS' record of the firmware.
    smbios: Vec<u8>,
    /// The device tree has an entry that QEMU makes.
    fw_cfg: bool,
    /// `container` in the first process's environment.
    init_container: Option<String>,
}

impl Clues {
    /// Reads them below `root`; `cpuid` is what the processor says.
    pub(super) fn read(root: &Path, cpuid: Option<String>) -> Self {
        let text = |path: &&'static str| {
            // What the kernel makes of a device tree ends in a zero.
            let text = std::fs::read_to_string(root.join(path)).ok()?;
            let text = text.trim_end_matches(['\0', '\n']);
            Some((*path, text.to_owned()))
        };
        let tree = std::fs::read_dir(root.join("proc/device-tree"));
        let mut tree = tree.into_iter().flatten().flatten();
        let environment = std::fs::read(root.join("proc/1/environ")).unwrap_or_default();
        let container = environment
            .split(|byte| *byte == 0)
            .find_map(|variable| variable.strip_prefix(b"container="));
        Self {
            lines: LINES.iter().filter_map(text).collect(),
            marks: MARKS
                .into_iter()
                .filter(|path| root.join(path).exists())
                .collect(),
            cpuid,
            smbios: std::fs::read(root.join("sys/firmware/dmi/entries/0-0/raw"))
                .unwrap_or_default(),
            fw_cfg: tree.any(|entry| entry.file_name().to_string_lossy().contains("fw-cfg")),
            init_container: container.map(|name| String::from_utf8_lossy(name).into_owned()),
        }
    }

    fn line(&self, path: &str) -> Option<&str> {
        self.lines
            .get(path)
            .map(|text| text.lines().next().unwrap_or_default())
    }

    fn has(&self, path: &str) -> bool {
        self.marks.contains(&path)
    }

    /// What the machine runs in, innermost first: a container in a virtual machine is a container.
    pub(super) fn name(&self) -> Option<&'static str> {
        self.container().or_else(|| self.machine())
    }

    fn container(&self) -> Option<&'static str> {
        let release = self.line(OS_RELEASE).unwrap_or_default();
        if self.has("proc/vz") && !self.has("proc/bc") {
            return Some("openvz");
        }
        if release.contains("Microsoft") || release.contains("WSL") {
            return Some("wsl");
        }
        let manager = [
            self.line("run/host/container-manager"),
            self.line("run/systemd/container"),
            self.init_container.as_deref(),
        ];
        match manager.into_iter().flatten().find(|name| !name.is_empty()) {
            // Said by images, of whatever runs them.
            Some("oci") => self.marked().or(Some("container-other")),
            Some(manager) => Some(container_name(manager)),
            None => {
                let other = self.in_cgroup_namespace().then_some("container-other");
                self.marked().or(other)
            }
        }
    }

    /// The container whose manager leaves a file. Docker last: its file may have got into an image.
    fn marked(&self) -> Option<&'static str> {
        if self.has("run/.containerenv") {
            Some("podman")
        } else {
            self.has(".dockerenv").then_some("docker")
        }
    }

    /// The root of the control groups is not the machine's.
    fn in_cgroup_namespace(&self) -> bool {
        if self.has("sys/fs/cgroup/cgroup.controllers") {
            // Version 2. Older kernels have no types, and the first file only where it is not the root.
            let new = self.has("sys/kernel/cgroup/features");
            return self.has("sys/fs/cgroup/cgroup.events")
                && (self.has("sys/fs/cgroup/cgroup.type") || !new);
        }
        self.has("sys/fs/cgroup/systemd") && !self.has("sys/fs/cgroup/systemd/release_agent")
    }

    /// Names of some firmware tell more than the processor does, which says KVM of all that is built on it; after
    /// these the processor is asked, then the rest of the firmware.
    fn machine(&self) -> Option<&'static str> {
        let firmware = self.firmware();
        if let Some(name @ ("oracle" | "xen" | "amazon" | "parallels" | "google")) = firmware {
            return Some(name);
        }
        if self.uml() {
            return Some("uml");
        }
        if self.has("proc/xen") && !self.owns_xen() {
            return Some("xen");
        }
        let processor = self.cpuid.as_deref().map(signature);
        match processor {
            // QEMU gives Hyper-V's signature too; and an unknown one is only better than nothing.
            None | Some("microsoft" | "vm-other") => {}
            known => return known,
        }
        if self.has("proc/xen") {
            return processor;
        }
        let certain = |name: &&str| *name != "vm-other";
        let others = || {
            [
                firmware,
                self.hypervisor(),
                self.device_tree(),
                self.mainframe(),
            ]
        };
        let named = others().into_iter().flatten().find(certain);
        let fallback = || others().into_iter().flatten().next();
        named.or(processor).or_else(fallback)
    }

    fn firmware(&self) -> Option<&'static str> {
        let vendor = DMI
            .iter()
            .filter_map(|path| self.line(path))
            .find_map(vendor);
        match vendor {
            // Machines of metal have the same vendor.
            Some("amazon") => {
                let product = self.line(DMI[0]).unwrap_or_default();
                let metal = product
                    .split_once(".metal")
                    .is_some_and(|(_, rest)| rest.is_empty() || rest.starts_with('-'));
                let is_virtual = self.smbios_bit().unwrap_or(!metal);
                is_virtual.then_some("amazon")
            }
            None if self.smbios_bit() == Some(true) => Some("vm-other"),
            other => other,
        }
    }

    /// Whether SMBIOS says that this is a virtual machine; none if it says nothing.
    fn smbios_bit(&self) -> Option<bool> {
        let length = *self.smbios.get(1)?;
        let byte = self.smbios.get(19).filter(|_| length >= 20)?;
        Some(byte & (1 << 4) != 0)
    }

    fn uml(&self) -> bool {
        let cpu = self.lines.get(UML).map(String::as_str).unwrap_or_default();
        let vendor = cpu.lines().find_map(|line| {
            let (key, value) = line.split_once(':')?;
            (key.trim_end() == "vendor_id").then_some(value.trim_start())
        });
        vendor.is_some_and(|vendor| vendor.starts_with("User Mode Linux"))
    }

    /// Of Xen's domains one owns the hardware: it is not virtual, unless the whole is nested in something.
    fn owns_xen(&self) -> bool {
        let features = self
            .line(FEATURES)
            .and_then(|text| u64::from_str_radix(text.trim(), 16).ok());
        match features {
            Some(features) => features & XEN_DOM0 != 0,
            None => self
                .line(CAPABILITIES)
                .is_some_and(|text| text.split(',').any(|word| word == "control_d")),
        }
    }

    fn hypervisor(&self) -> Option<&'static str> {
        self.line("sys/hypervisor/type")
            .map(|name| if name == "xen" { "xen" } else { "vm-other" })
    }

    fn device_tree(&self) -> Option<&'static str> {
        match self.line(DEVICE_TREE) {
            Some("linux,kvm") => Some("kvm"),
            Some(name) if name.contains("xen") => Some("xen"),
            Some(name) if name.contains("vmware") => Some("vmware"),
            Some(_) => Some("vm-other"),
            None if self.has("proc/device-tree/ibm,partition-name")
                && self.has("proc/device-tree/hmc-managed?")
                && !self.has("proc/device-tree/chosen/qemu,graphic-width") =>
            {
                Some("powervm")
            }
            None if self.fw_cfg || self.line(COMPATIBLE) == Some("qemu,pseries") => Some("qemu"),
            None => None,
        }
    }

    fn mainframe(&self) -> Option<&'static str> {
        let program = self
            .lines
            .get("proc/sysinfo")?
            .lines()
            .find_map(|line| line.strip_prefix("VM00 Control Program:"))?;
        Some(if program.trim().starts_with("z/VM") {
            "zvm"
        } else {
            "kvm"
        })
    }
}

fn container_name(manager: &str) -> &'static str {
    const KNOWN: [&str; 8] = [
        "lxc",
        "lxc-libvirt",
        "systemd-nspawn",
        "docker",
        "podman",
        "rkt",
        "proot",
        "pouch",
    ];
    let known = KNOWN.into_iter().find(|known| *known == manager);
    known.unwrap_or("container-other")
}

fn vendor(text: &str) -> Option<&'static str> {
    const VENDORS: [(&str, &str); 17] = [
        ("KVM", "kvm"),
        ("OpenStack", "kvm"),
        ("KubeVirt", "kvm"),
        ("Amazon EC2", "amazon"),
        ("QEMU", "qemu"),
        ("VMware", "vmware"),
        ("VMW", "vmware"),
        ("innotek GmbH", "oracle"),
        ("VirtualBox", "oracle"),
        ("Oracle Corporation", "oracle"),
        ("Xen", "xen"),
        ("Bochs", "bochs"),
        ("Parallels", "parallels"),
        ("BHYVE", "bhyve"),
        ("Hyper-V", "microsoft"),
        ("Apple Virtualization", "apple"),
        ("Google Compute Engine", "google"),
    ];
    let found = VENDORS.iter().find(|(begin, _)| text.starts_with(begin));
    found.map(|(_, name)| *name)
}

fn signature(text: &str) -> &'static str {
    match text {
        "XenVMMXenVMM" => "xen",
        // The second: with Hyper-V's enlightenments.
        "KVMKVMKVM" | "Linux KVM Hv" => "kvm",
        "TCGTCGTCGTCG" => "qemu",
        "VMwareVMware" => "vmware",
        "Microsoft Hv" => "microsoft",
        "bhyve bhyve " => "bhyve",
        "QNXQVMBSQG" => "qnx",
        "ACRNACRNACRN" => "acrn",
        "SRESRESRESRE" => "sre",
        "Apple VZ" => "apple",
        _ => "vm-other",
    }
}

/// The signature of the hypervisor under this processor; none without one.
#[cfg(target_arch = "x86_64")]
pub(super) fn cpuid() -> Option<String> {
    use std::arch::x86_64::__cpuid;
    const PRESENT: u32 = 1 << 31;
    if __cpuid(1).ecx & PRESENT == 0 {
        return None;
    }
    let leaf = __cpuid(0x4000_0000);
    let bytes: Vec<u8> = [leaf.ebx, leaf.ecx, leaf.edx]
        .iter()
        .flat_map(|word| word.to_le_bytes())
        .collect();
    let text = String::from_utf8_lossy(&bytes);
    Some(text.trim_end_matches('\0').to_owned())
}

/// Other processors do not tell.
#[cfg(not(target_arch = "x86_64"))]
pub(super) fn cpuid() -> Option<String> {
    None
}
