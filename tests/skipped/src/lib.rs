//! Tests that cannot run where they are: a test says so here, and `cargo xtask test` lists what was skipped and why.

use std::io::Write;

/// Notes that what `name` stands for was not tested. In the file that the variable BERTH_SKIPPED names, if it is set.
///
/// # Panics
///
/// If that file cannot be written: a skip that nobody sees is a test that nobody has.
pub fn skip(name: &str, why: &str) {
    let line = format!("{name}: {why}\n");
    // One write each, so that lines of tests that run at once do not mix.
    let _ = std::io::stderr().write_all(format!("skipped {line}").as_bytes());
    let Some(path) = std::env::var_os("BERTH_SKIPPED") else {
        return;
    };
    let list = std::fs::File::options()
        .create(true)
        .append(true)
        .open(&path);
    let written = list.and_then(|mut list| list.write_all(line.as_bytes()));
    if let Err(error) = written {
        panic!("cannot write {}: {error}", path.display());
    }
}
