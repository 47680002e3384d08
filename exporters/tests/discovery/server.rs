//! Real servers as processes: found, started in a folder of their own, killed, started again.

use std::net::{SocketAddr, TcpListener, TcpStream};
use std::path::{Path, PathBuf};
use std::process::{Child, Command, Stdio};
use std::time::{Duration, Instant};

use rustix::process::{Pid, Signal, kill_process};

use crate::rig::PATIENCE;

/// The program that `variable` names, or that lies at `usual`. `None`: a loud word and no test,
/// but in CI.
pub(crate) fn program(variable: &str, usual: &Path) -> Option<PathBuf> {
    let named = std::env::var_os(variable).map(PathBuf::from);
    let program = named.unwrap_or_else(|| usual.to_owned());
    if program.is_file() {
        return Some(program);
    }
    let program = program.display();
    assert!(
        std::env::var_os("CI").is_none(),
        "{program} is not there: .ci/packages, tests/interop/install, or {variable}"
    );
    eprintln!("\n*** {program} is not there: this was NOT tested. Install it or set {variable}.\n");
    None
}

/// A server that ends with its test.
pub(crate) struct Server {
    program: PathBuf,
    folder: PathBuf,
    arguments: Vec<String>,
    address: SocketAddr,
    second_address: SocketAddr,
    child: Option<Child>,
}

impl Server {
    /// `arguments` is given the folder for data, and `ports` that were free a moment ago; the
    /// first of them is the one that clients use.
    pub(crate) fn start<const PORTS: usize>(
        program: PathBuf,
        name: &str,
        arguments: impl FnOnce(&Path, [u16; PORTS]) -> Vec<String>,
    ) -> Server {
        let folder = std::env::temp_dir().join(format!("forebay-{name}-{}", std::process::id()));
        let _ = std::fs::remove_dir_all(&folder);
        std::fs::create_dir_all(&folder).unwrap();
        let ports = free_ports();
        let at = |port: u16| SocketAddr::from(([127, 0, 0, 1], port));
        let (address, second_address) = (at(ports[0]), at(ports[1]));
        let arguments = arguments(&folder, ports);
        let mut server =
            Server { program, folder, arguments, address, second_address, child: None };
        server.restart();
        server
    }

    /// `host:port`.
    pub(crate) fn address(&self) -> String {
        self.address.to_string()
    }

    /// With the second of its ports.
    pub(crate) fn second_address(&self) -> SocketAddr {
        self.second_address
    }

    pub(crate) fn kill(&mut self) {
        if let Some(mut child) = self.child.take() {
            child.kill().unwrap();
            child.wait().unwrap();
        }
    }

    /// After `STOP` it keeps its connections and answers nothing, until `CONT`.
    pub(crate) fn signal(&self, signal: Signal) {
        let pid = Pid::from_child(self.child.as_ref().unwrap());
        kill_process(pid, signal).unwrap();
    }

    pub(crate) fn restart(&mut self) {
        self.kill();
        let mut child = self.spawn();
        let begun = Instant::now();
        while TcpStream::connect(self.address).is_err() {
            if begun.elapsed() > PATIENCE {
                self.child = Some(child);
                panic!("it does not listen:\n{}", self.log());
            }
            std::thread::sleep(Duration::from_millis(20));
            if child.try_wait().unwrap().is_some() {
                // Somebody may have one of its ports for the moment.
                child = self.spawn();
            }
        }
        self.child = Some(child);
    }

    fn spawn(&self) -> Child {
        let log = std::fs::File::create(self.folder.join("log")).unwrap();
        Command::new(&self.program)
            .args(&self.arguments)
            .stdin(Stdio::null())
            .stdout(log.try_clone().unwrap())
            .stderr(log)
            .spawn()
            .unwrap()
    }

    /// Starts again with nothing that it knew.
    pub(crate) fn restart_empty(&mut self) {
        self.kill();
        for entry in std::fs::read_dir(&self.folder).unwrap() {
            let _ = std::fs::remove_dir_all(entry.unwrap().path());
        }
        self.restart();
    }

    pub(crate) fn log(&self) -> String {
        std::fs::read_to_string(self.folder.join("log")).unwrap_or_default()
    }
}

impl Drop for Server {
    fn drop(&mut self) {
        self.kill();
        if std::thread::panicking() {
            let log = self.log();
            let from = log.len().saturating_sub(2000);
            eprintln!("{}", String::from_utf8_lossy(&log.as_bytes()[from..]));
        }
        let _ = std::fs::remove_dir_all(&self.folder);
    }
}

/// The status and the body of an answer, from a client that is not the one under test.
pub(crate) async fn post(address: &str, method: &str, path: &str, body: &str) -> (u16, String) {
    use tokio::io::{AsyncReadExt as _, AsyncWriteExt as _};
    let mut stream = tokio::net::TcpStream::connect(address).await.unwrap();
    let length = body.len();
    let request = format!(
        "{method} {path} HTTP/1.0\r\nHost: {address}\r\nContent-Length: {length}\r\n\r\n{body}"
    );
    stream.write_all(request.as_bytes()).await.unwrap();
    let mut answer = String::new();
    stream.read_to_string(&mut answer).await.unwrap();
    let (head, body) = answer.split_once("\r\n\r\n").unwrap();
    let status = head.split(' ').nth(1).unwrap().parse().unwrap();
    (status, body.to_owned())
}

fn free_ports<const PORTS: usize>() -> [u16; PORTS] {
    let listeners: Vec<TcpListener> =
        (0..PORTS).map(|_| TcpListener::bind("127.0.0.1:0").unwrap()).collect();
    std::array::from_fn(|at| listeners[at].local_addr().unwrap().port())
}
