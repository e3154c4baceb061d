//! The package that `init` writes really serves.
#![allow(clippy::unwrap_used, reason = "helpers of tests are test code too")]

use std::io::{BufRead, BufReader, Read, Write};
use std::net::TcpStream;
use std::process::{Child, Command, Stdio};

use berth_package::{Template, build, init, lookup, unpack};

struct Server(Child);

impl Drop for Server {
    fn drop(&mut self) {
        let _ = self.0.kill();
        let _ = self.0.wait();
    }
}

fn ask(port: u16, request: &str) -> (u16, serde_json::Value) {
    let mut stream = TcpStream::connect(("127.0.0.1", port)).unwrap();
    stream.write_all(request.as_bytes()).unwrap();
    let mut answer = String::new();
    stream.read_to_string(&mut answer).unwrap();
    let (head, body) = answer.split_once("\r\n\r\n").unwrap();
    (
        head.split(' ').nth(1).unwrap().parse().unwrap(),
        serde_json::from_str(body).unwrap(),
    )
}

#[test]
fn the_first_package_builds_unpacks_and_predicts() {
    let temp = tempfile::tempdir().unwrap();
    let (dir, out) = (temp.path().join("new/echo"), temp.path().join("p"));
    init(&dir, &"my-model".parse().unwrap(), Template::Plain).unwrap();
    assert!(
        init(&dir, &"my-model".parse().unwrap(), Template::Plain)
            .unwrap_err()
            .to_string()
            .contains("berth.toml")
    );
    let built = build(&dir, &out).unwrap();
    assert_eq!(built.name.as_str(), "my-model");
    let reader = std::fs::File::open(&out).unwrap();
    unpack(
        reader,
        built.digest,
        &temp.path().join("s"),
        Default::default(),
    )
    .unwrap();
    let package = lookup(&temp.path().join("s"), built.digest)
        .unwrap()
        .unwrap();

    let [program, arguments @ ..] = &package.manifest.module.command[..] else {
        panic!()
    };
    let child = Command::new(program)
        .args(arguments)
        .current_dir(&package.path)
        .env("HOST", "127.0.0.1")
        .env("PORT", "0")
        .env("BERTH_MODEL_NAME", "served-as")
        .stdout(Stdio::piped())
        .spawn();
    let Ok(child) = child else {
        eprintln!("skipped: {program} is not installed");
        return;
    };
    let mut server = Server(child);
    let mut output = BufReader::new(server.0.stdout.take().unwrap());
    let mut line = String::new();
    output.read_line(&mut line).unwrap();
    let port: u16 = line.trim().rsplit(':').next().unwrap().parse().unwrap();

    let (status, _) = ask(
        port,
        "GET /healthz HTTP/1.1\r\nHost: x\r\nConnection: close\r\n\r\n",
    );
    assert_eq!(status, 200);
    let golden = &package.manifest.golden[0];
    let post = |body: &str| {
        let length = body.len();
        ask(
            port,
            &format!(
                "POST /v1/models/served-as:predict HTTP/1.1\r\nHost: x\r\nConnection: close\r\n\
                 Content-Length: {length}\r\n\r\n{body}"
            ),
        )
    };
    assert_eq!(
        post(&golden.request.to_string()),
        (200, golden.response.clone())
    );
    assert_eq!(post("{}").0, 400);
    let pid = server.0.id().to_string();
    assert!(
        Command::new("kill")
            .args(["-TERM", &pid])
            .status()
            .unwrap()
            .success()
    );
    assert!(server.0.wait().unwrap().success());
}

#[test]
fn every_template_builds_to_the_same_package_each_time() {
    for template in Template::ALL {
        let temp = tempfile::tempdir().unwrap();
        let name = "my-model".parse().unwrap();
        let [one, two] = ["one", "two"].map(|folder| {
            let dir = temp.path().join(folder);
            init(&dir, &name, template).unwrap();
            build(&dir, &temp.path().join(format!("{folder}.tar.zst"))).unwrap()
        });
        assert_eq!(
            (one.digest, one.archive),
            (two.digest, two.archive),
            "{template:?}"
        );
        assert_eq!(one.name, name);
        assert!(!one.manifest.golden.is_empty(), "{template:?}");
        assert!(one.archive_size < 100_000, "{template:?}");
    }
}

fn refused(manifest: &str, files: &[&str]) -> Option<String> {
    let temp = tempfile::tempdir().unwrap();
    let dir = temp.path().join("p");
    let text = format!("[package]\nname = \"m\"\nversion = \"1.0.0\"\n{manifest}");
    for (path, text) in files
        .iter()
        .map(|path| (*path, "x"))
        .chain([("berth.toml", text.as_str())])
    {
        let path = dir.join(path);
        std::fs::create_dir_all(path.parent().unwrap()).unwrap();
        if !path.as_os_str().to_string_lossy().ends_with('/') {
            std::fs::write(path, text).unwrap();
        } else {
            std::fs::create_dir_all(path).unwrap();
        }
    }
    build(&dir, &temp.path().join("out"))
        .err()
        .map(|error| error.to_string())
}

#[test]
fn a_wrong_saved_model_folder_says_what_was_found_and_what_to_write() {
    let served = "[model]\npath = \"model\"\n[module]\nkind = \"tf-serving\"\n";
    let cases: [(&[&str], &str); 8] = [
        (&["model/saved_model.pb"], ""),
        (&["model/1/saved_model.pb"], "write path = \"model/1\""),
        (
            &["model/export/saved_model.pbtxt"],
            "whose name is no version number",
        ),
        (
            &["model/1/saved_model.pb", "model/2/saved_model.pb"],
            "holds 2 SavedModels",
        ),
        (
            &["model/1/variables/x"],
            "nor its version folder \"model/1\" holds saved_model.pb",
        ),
        (
            &["model/model.keras"],
            "it holds \"model.keras\" and no saved_model.pb",
        ),
        (&["model/"], "is empty"),
        (&["model"], "is the file \"model\""),
    ];
    for (files, wanted) in cases {
        let told = refused(served, files).unwrap_or_default();
        assert!(
            told.contains(wanted) && told.is_empty() == wanted.is_empty(),
            "{files:?}: {told}"
        );
    }
}

#[test]
fn a_python_package_needs_its_requirements() {
    let manifest = "[model]\npath = \"w\"\n[module]\nkind = \"custom\"\npreset = \"python\"\ncommand = [\"x\"]\n";
    let told = refused(manifest, &["w"]).unwrap();
    assert!(told.contains("installs requirements.txt"), "{told}");
    assert_eq!(refused(manifest, &["w", "requirements.txt"]), None);
}
