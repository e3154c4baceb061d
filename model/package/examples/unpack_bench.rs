//! Unpacking a large package against `tar --zstd -x` followed by `sync -f`, in alternate rounds.
//!
//! `cargo run --release -p berth-package --example unpack_bench -- [MEGABYTES [ROUNDS [FOLDER]]]`
//! prints one JSON object with the times in seconds. FOLDER (default: the system's temporary folder)
//! chooses the file system.

use std::error::Error;
use std::fs;
use std::io::Write;
use std::path::Path;
use std::process::Command;
use std::time::Instant;

use berth_package::{Limits, build, unpack};
use nix::sys::resource::{UsageWho, getrusage};

type Done<T> = Result<T, Box<dyn Error>>;

/// One weights file.
const LARGE: usize = 140_000_000;
/// Small files, as Python packages have them.
const SMALL: usize = 2_000;
const SMALL_BYTES: usize = 20_000;

/// Seconds of each round.
#[derive(Default)]
struct Times {
    wall: Vec<f64>,
    cpu: Vec<f64>,
}

fn main() -> Done<()> {
    let mut arguments = std::env::args().skip(1);
    let megabytes: usize = arguments.next().map_or(Ok(600), |text| text.parse())?;
    let rounds: usize = arguments.next().map_or(Ok(5), |text| text.parse())?;
    let folder = arguments.next().map_or_else(std::env::temp_dir, Into::into);
    let temp = tempfile::tempdir_in(folder)?;
    let (dir, archive) = (
        temp.path().join("package"),
        temp.path().join("package.tar.zst"),
    );
    make(&dir, megabytes * 1_000_000)?;
    let built = build(&dir, &archive)?;
    fs::remove_dir_all(&dir)?;

    let (mut ours, mut theirs) = (Times::default(), Times::default());
    // Round zero is for warming up. The order changes, so that neither always finds the disk as the
    // other has left it.
    for round in 0..=rounds {
        for ours_now in [round % 2 == 0, round % 2 != 0] {
            let to = temp.path().join("to");
            fs::create_dir(&to)?;
            // Waits until earlier writes are on the disk, so that no round pays for another.
            run(&mut Command::new("sync"))?;
            let (times, who) = if ours_now {
                (&mut ours, UsageWho::RUSAGE_SELF)
            } else {
                (&mut theirs, UsageWho::RUSAGE_CHILDREN)
            };
            let (start, before) = (Instant::now(), cpu(who)?);
            if ours_now {
                unpack(
                    fs::File::open(&archive)?,
                    built.digest,
                    &to,
                    Limits::default(),
                )?;
            } else {
                untar(&archive, &to)?;
            }
            if round > 0 {
                times.wall.push(start.elapsed().as_secs_f64());
                times.cpu.push(cpu(who)? - before);
            }
            fs::remove_dir_all(&to)?;
        }
    }
    let report = serde_json::json!({
        "bytes": built.size,
        "files": built.files,
        "archive_bytes": built.archive_size,
        "berth_s": ours.wall,
        "tar_s": theirs.wall,
        "berth_cpu_s": ours.cpu,
        "tar_cpu_s": theirs.cpu,
        "berth_median_s": median(&ours.wall),
        "tar_median_s": median(&theirs.wall),
        "ratio": median(&ours.wall) / median(&theirs.wall),
    });
    writeln!(std::io::stdout().lock(), "{report}")?;
    Ok(())
}

/// Weights that compress a little, as trained ones do, and many small texts.
fn make(dir: &Path, total: usize) -> Done<()> {
    fs::create_dir_all(dir.join("model"))?;
    fs::create_dir_all(dir.join("lib"))?;
    let manifest = "[package]\nname = \"bench\"\nversion = \"1.0.0\"\n[model]\npath = \"model\"\n\
                    [module]\nkind = \"custom\"\ncommand = [\"server\"]\n";
    fs::write(dir.join("berth.toml"), manifest)?;
    let small = (SMALL * SMALL_BYTES).min(total / 2);
    for number in 0..small / SMALL_BYTES {
        let text: String = (0..SMALL_BYTES / 20)
            .map(|line| format!("value_{:08x} = {:04}\n", line * number, line % 9999))
            .collect();
        fs::write(
            dir.join(format!("lib/module_{number}.py")),
            &text[..SMALL_BYTES],
        )?;
    }
    let mut noise = blake3::Hasher::new().update(b"weights").finalize_xof();
    let mut left = total - small;
    let mut number = 0;
    while left > 0 {
        let mut bytes = vec![0; left.min(LARGE)];
        noise.fill(&mut bytes);
        for weight in bytes.as_chunks_mut::<4>().0 {
            // Little-endian floats of similar size: mantissas of noise, few exponents.
            weight[3] = 0x3c | weight[3] & 0x81;
        }
        left -= bytes.len();
        fs::write(dir.join(format!("model/weights-{number}")), bytes)?;
        number += 1;
    }
    Ok(())
}

/// What a shell script would do.
fn untar(archive: &Path, to: &Path) -> Done<()> {
    run(Command::new("tar")
        .args(["--zstd", "-x", "-f"])
        .arg(archive)
        .arg("-C")
        .arg(to))?;
    run(Command::new("sync").arg("-f").arg(to))
}

fn run(command: &mut Command) -> Done<()> {
    let status = command.status()?;
    if status.success() {
        Ok(())
    } else {
        Err(format!("{command:?}: {status}").into())
    }
}

/// Processor time so far: what the work costs, however busy the machine is otherwise.
fn cpu(who: UsageWho) -> Done<f64> {
    let usage = getrusage(who)?;
    let [user, system] = [usage.user_time(), usage.system_time()]
        .map(|time| time.tv_sec() as f64 + time.tv_usec() as f64 / 1e6);
    Ok(user + system)
}

fn median(times: &[f64]) -> f64 {
    let mut sorted = times.to_vec();
    sorted.sort_by(f64::total_cmp);
    sorted.get(sorted.len() / 2).copied().unwrap_or(f64::NAN)
}
