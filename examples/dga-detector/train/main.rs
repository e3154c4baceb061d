//! `dga-train`: makes `dga.bin` and `metrics.json` from Debian's word lists and the published
//! algorithms of malware families. The same word lists give the same bytes.

#![forbid(unsafe_code)]

use std::io::Write as _;
use std::path::PathBuf;
use std::process::ExitCode;

use dga_detector::model::FILE;

mod benign;
mod families;
mod fit;
mod prng;
mod report;
mod sets;
mod words;

use report::{Measured, Report, build};
use sets::{Side, Taken};
use words::{Lexicon, Part};

/// The shares of benign names that the experts may flag where the operating point is chosen.
const FALSE_POSITIVE_RATES: [f64; fit::EXPERTS.len()] = [0.008, 0.002];

/// Well-known sites, a last check on real names.
const WELL_KNOWN: &str = include_str!("well-known.txt");

const USAGE: &str = "\
Usage: dga-train [--words DIR] [--model DIR] [--check] [--families]
  --words DIR   word lists (default /usr/share/dict)
  --model DIR   where dga.bin and metrics.json are (default model)
  --check       write nothing; fail unless the files are what training gives
  --families    print a few names of every family and train nothing";

struct Options {
    words: PathBuf,
    model: PathBuf,
    check: bool,
    families: bool,
}

#[derive(Debug, thiserror::Error)]
enum Error {
    #[error("{0}\n{USAGE}")]
    Usage(String),
    #[error(transparent)]
    Words(#[from] words::WordsError),
    #[error("the fitted model is unusable")]
    Model(#[from] dga_detector::model::ModelError),
    #[error("cannot write the report")]
    Report(#[from] serde_json::Error),
    #[error("{path}")]
    File {
        path: PathBuf,
        source: std::io::Error,
    },
    #[error("cannot print")]
    Print(#[from] std::io::Error),
    #[error("{0} is not what training gives now (other word lists? they are in metrics.json)")]
    Differs(PathBuf),
}

fn main() -> ExitCode {
    match options(std::env::args().skip(1)).and_then(|options| run(&options)) {
        Ok(()) => ExitCode::SUCCESS,
        Err(error) => {
            let mut text = format!("dga-train: {error}");
            let mut source = std::error::Error::source(&error);
            while let Some(cause) = source {
                text.push_str(&format!(": {cause}"));
                source = cause.source();
            }
            eprintln!("{text}");
            ExitCode::from(if matches!(error, Error::Usage(_)) {
                2
            } else {
                1
            })
        }
    }
}

fn options(mut args: impl Iterator<Item = String>) -> Result<Options, Error> {
    let mut options = Options {
        words: "/usr/share/dict".into(),
        model: "model".into(),
        check: false,
        families: false,
    };
    while let Some(arg) = args.next() {
        let mut value = || {
            args.next()
                .ok_or_else(|| Error::Usage(format!("{arg} needs a value")))
        };
        match arg.as_str() {
            "--words" => options.words = value()?.into(),
            "--model" => options.model = value()?.into(),
            "--check" => options.check = true,
            "--families" => options.families = true,
            other => return Err(Error::Usage(format!("unknown argument {other:?}"))),
        }
    }
    Ok(options)
}

fn run(options: &Options) -> Result<(), Error> {
    let (lexicon, sources) = Lexicon::read(&options.words)?;
    if options.families {
        return samples(&lexicon);
    }
    let mut taken = Taken::default();
    let [train, valid, test] = [Part::Train, Part::Valid, Part::Test]
        .map(|part| Side::make(part, &lexicon, sets::FULL, &mut taken));
    let model = build(&train, &valid, fit::FULL, FALSE_POSITIVE_RATES)?;
    let well_known: Vec<&str> = WELL_KNOWN.lines().filter(|l| !l.starts_with('#')).collect();
    let report = Report::new(Measured {
        model: &model,
        sources,
        train: &train,
        test: &test,
        rate: FALSE_POSITIVE_RATES.iter().sum(),
        well_known: &well_known,
    });
    let json = serde_json::to_string_pretty(&report)? + "\n";
    deliver(options, FILE, &model.to_bytes())?;
    deliver(options, "metrics.json", json.as_bytes())?;
    let mut out = std::io::stdout().lock();
    write!(out, "{json}for berth.toml:\n{}\n", report.manifest_line())?;
    Ok(())
}

/// Writes a file, or compares it.
fn deliver(options: &Options, name: &str, content: &[u8]) -> Result<(), Error> {
    let path = options.model.join(name);
    if options.check {
        return match std::fs::read(&path) {
            Ok(found) if found == content => Ok(()),
            Ok(_) => Err(Error::Differs(path)),
            Err(source) => Err(Error::File { path, source }),
        };
    }
    std::fs::write(&path, content).map_err(|source| Error::File { path, source })
}

fn samples(lexicon: &Lexicon) -> Result<(), Error> {
    let mut out = std::io::stdout().lock();
    for family in families::FAMILIES {
        let mut campaign = families::Campaign::new(family, "sample", 0, lexicon);
        writeln!(
            out,
            "{:14} {}",
            family.name,
            family.names(&mut campaign, 4).join(" ")
        )?;
    }
    let composer_words = lexicon.part(Part::Test);
    let composer = benign::Composer::new(&composer_words);
    let mut prng = prng::Prng::new("sample", 0);
    for _ in 0..60 {
        let (kind, name) = composer.name(&mut prng);
        writeln!(out, "{kind:14} {name}")?;
    }
    Ok(())
}
