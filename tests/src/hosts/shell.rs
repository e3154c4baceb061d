//! Commands on a host, by its shell for tests (`tests/platform/hosts/guest`).

use std::io::{BufRead, BufReader, Write};
use std::net::{SocketAddr, TcpStream};
use std::time::Duration;

use anyhow::{Context, Result, bail};

const PORT: u16 = 2222;
/// Longest time to connect: a host without power or cable says nothing.
const CONNECT: Duration = Duration::from_secs(5);
/// Longest silence of a command, whose host may lose its power meanwhile.
const PATIENCE: Duration = Duration::from_secs(300);
/// Begins the line with the exit status, which follows all output.
const STATUS: &str = "\u{1}rc=";

/// Runs a bash script there; its output, without white space around it. Fails as the script does.
pub(super) fn run(address: &str, script: &str) -> Result<String> {
    let at = SocketAddr::new(address.parse()?, PORT);
    let mut shell = TcpStream::connect_timeout(&at, CONNECT).context("no shell there")?;
    shell.set_read_timeout(Some(PATIENCE))?;
    shell.write_all(script.as_bytes())?;
    shell.write_all(b"\0")?;
    let mut lines = BufReader::new(shell);
    let mut said = String::new();
    // What the script has left running may hold the connection open.
    loop {
        let mut line = Vec::new();
        let read = lines
            .read_until(b'\n', &mut line)
            .context(script.to_owned());
        let line = String::from_utf8_lossy(&line);
        match line.strip_prefix(STATUS).map(str::trim) {
            Some("0") => return Ok(said.trim().to_owned()),
            Some(status) => bail!("{script}: exit status {status}\n{}", said.trim()),
            None if read? == 0 => bail!("{script}: broken off\n{}", said.trim()),
            None => said.push_str(&line),
        }
    }
}
