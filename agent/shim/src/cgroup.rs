//! Control groups: where a process's own are, whichever version the machine has.

use std::path::{Path, PathBuf};

/// Version of a hierarchy.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Version {
    /// One hierarchy per controller.
    V1,
    /// One for all.
    V2,
}

/// A control group.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Group {
    /// Its folder.
    pub dir: PathBuf,
    /// Where the hierarchy is mounted: limits of groups above hold too.
    pub top: PathBuf,
    /// Which version it is of.
    pub version: Version,
}

/// This process's groups in which a controller may be: version 2 first. There it is not looked whether it has that
/// controller.
pub fn own(controller: &str) -> Vec<Group> {
    let read = |path| std::fs::read_to_string(path).unwrap_or_default();
    groups(
        controller,
        &read("/proc/self/cgroup"),
        &read("/proc/self/mountinfo"),
    )
}

/// The groups of a process, by its `cgroup` and `mountinfo`.
fn groups(controller: &str, cgroup: &str, mountinfo: &str) -> Vec<Group> {
    let mut found = Vec::new();
    for line in cgroup.lines() {
        let mut fields = line.splitn(3, ':');
        let (Some(_), Some(controllers), Some(path)) =
            (fields.next(), fields.next(), fields.next())
        else {
            continue;
        };
        let version = match controllers {
            "" => Version::V2,
            list if list.split(',').any(|one| one == controller) => Version::V1,
            _ => continue,
        };
        for mount in mountinfo.lines().filter_map(mounted) {
            let fits = match version {
                Version::V2 => mount.kind == "cgroup2",
                Version::V1 => {
                    let mut options = mount.options.split(',');
                    mount.kind == "cgroup" && options.any(|one| one == controller)
                }
            };
            if !fits {
                continue;
            }
            // A container sees its own group as the top, whether or not it sees its path as "/".
            let below = Path::new(path)
                .strip_prefix(mount.root)
                .unwrap_or(Path::new(""));
            let mut dir = PathBuf::from(mount.point);
            dir.extend(below);
            let group = Group {
                dir,
                top: mount.point.into(),
                version,
            };
            found.push(group);
        }
    }
    found.sort_by_key(|group| group.version != Version::V2);
    found
}

struct Mounted<'a> {
    root: &'a str,
    point: &'a str,
    kind: &'a str,
    options: &'a str,
}

/// One line of `mountinfo`.
fn mounted(line: &str) -> Option<Mounted<'_>> {
    let (before, after) = line.split_once(" - ")?;
    let mut before = before.split(' ').skip(3);
    let (root, point) = (before.next()?, before.next()?);
    let mut after = after.split(' ');
    let kind = after.next()?;
    let options = after.nth(1)?;
    Some(Mounted {
        root,
        point,
        kind,
        options,
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    const HYBRID: &str = "\
        24 1 0:20 / /sys/fs/cgroup ro shared:8 - tmpfs tmpfs ro\n\
        30 24 0:25 /docker/abc /sys/fs/cgroup/memory ro,nosuid master:9 - cgroup cgroup rw,memory\n\
        31 24 0:26 / /sys/fs/cgroup/cpu ro - cgroup cgroup rw,cpu\n\
        32 24 0:27 / /sys/fs/cgroup/unified rw - cgroup2 cgroup2 rw\n";

    fn dirs(cgroup: &str, mountinfo: &str) -> Vec<String> {
        let groups = groups("memory", cgroup, mountinfo);
        groups.iter().map(|g| g.dir.display().to_string()).collect()
    }

    #[test]
    fn the_group_is_found_in_either_version_in_and_outside_of_containers() {
        let expected = ["/sys/fs/cgroup/unified", "/sys/fs/cgroup/memory"];
        // The container's group by the host's path, and by its own.
        assert_eq!(
            dirs("4:cpu:/x\n3:memory:/docker/abc\n0::/\n", HYBRID),
            expected
        );
        assert_eq!(dirs("3:memory:/\n0::/\n", HYBRID), expected);
        let v2 = "32 24 0:27 / /sys/fs/cgroup rw - cgroup2 cgroup2 rw\n";
        assert_eq!(
            dirs("0::/system.slice/berth-agent.service\n", v2),
            ["/sys/fs/cgroup/system.slice/berth-agent.service"]
        );
        assert_eq!(dirs("rubbish\n::\n", "rubbish - \n"), [""; 0]);
    }
}
