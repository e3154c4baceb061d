//! A full disk for tests, a real one: a small file system of the test's own.

use std::process::Command;

/// Runs a test of this binary on a file system of 2 MB, of which a file `ballast` takes one. The folder is
/// in the environment variable `var`. Where no file system can be mounted, it says so and does nothing.
pub(crate) fn on_small_disk(var: &str, test: &str) {
    let dir = tempfile::tempdir().unwrap();
    let script = format!(
        "mount -t tmpfs -o size=2m none '{0}' || exit 77
         head -c 1000000 /dev/zero > '{0}/ballast'
         {var}='{0}' '{1}' --exact {test}",
        dir.path().display(),
        std::env::current_exe().unwrap().display()
    );
    let output = Command::new("unshare")
        .args(["--map-root-user", "--mount", "sh", "-c", &script])
        .output();
    match output {
        Ok(output) if output.status.success() => {
            let told = String::from_utf8_lossy(&output.stdout);
            assert!(told.contains("1 passed"), "{told}");
        }
        Ok(output) if output.status.code() == Some(77) || refused(&output.stderr) => {
            berth_skipped::skip("small-disk", "a file system cannot be mounted here");
        }
        Ok(output) => panic!("{output:?}"),
        Err(error) => berth_skipped::skip("small-disk", &format!("no unshare: {error}")),
    }
}

fn refused(stderr: &[u8]) -> bool {
    String::from_utf8_lossy(stderr).contains("unshare: ")
}
