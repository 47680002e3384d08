//! Children: pinned to cores, watched, talked to, and gone when we are.
//!
//! Always
//! - What a child says on standard error is kept, and its last lines are part of any error.
//! - A child that is dropped is killed. If we are killed ourselves, programs are killed by the
//!   kernel, and workers end when their orders do.

use std::ffi::OsString;
use std::io::{BufRead, BufReader, Write};
use std::os::unix::process::CommandExt;
use std::path::{Path, PathBuf};
use std::process::{Child, ChildStdin, Command, ExitCode, ExitStatus, Stdio};
use std::sync::mpsc::{Receiver, RecvTimeoutError, channel};
use std::time::{Duration, Instant};

use rustix::process::{
    Pid, Signal, getppid, kill_process, kill_process_group, set_parent_process_death_signal,
};

use crate::control::{Event, Order};
use crate::machine;

/// Lines of a child's last words in an error.
const LAST_WORDS: usize = 12;

/// Who runs where.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Placement {
    pub engine: Vec<usize>,
    pub load: Vec<usize>,
    pub sink: Vec<usize>,
}

impl Placement {
    /// The engine gets the first `engine_cores` of `cores`, load and sink share the rest: the
    /// same core if there is only one left, else half each.
    pub fn choose(engine_cores: usize, cores: &[usize]) -> Placement {
        let engine_cores = engine_cores.clamp(1, cores.len().max(2) - 1).min(cores.len());
        let (engine, rest) = cores.split_at(engine_cores);
        let (load, sink) = match rest.len() {
            0 => (engine, engine),
            1 => (rest, rest),
            more => rest.split_at(more.div_ceil(2)),
        };
        Placement { engine: engine.to_vec(), load: load.to_vec(), sink: sink.to_vec() }
    }

    /// Cores of load and sink together.
    pub fn others(&self) -> usize {
        if self.load == self.sink { self.load.len() } else { self.load.len() + self.sink.len() }
    }

    /// What makes figures of this placement doubtful.
    pub fn warning(&self) -> Option<String> {
        let shared = self.engine.iter().any(|core| self.load.contains(core));
        shared.then(|| {
            "there is one core only: engine, load and sink take it from each other, and latencies \
             mean little"
                .to_owned()
        })
    }
}

/// What a program is started with.
#[derive(Clone, Copy, Debug)]
pub struct Start<'a> {
    /// For errors.
    pub name: &'a str,
    /// The name that it finds itself started under; empty: its path.
    pub called: &'a str,
    pub command: &'a [String],
    pub environment: &'a [(String, String)],
}

/// A child process.
pub struct Spawned {
    name: String,
    child: Child,
    stdout: PathBuf,
    stderr: PathBuf,
}

impl Spawned {
    /// Starts it on `cores`; its output goes to files in `folder`.
    pub fn start(what: &Start<'_>, cores: &[usize], folder: &Path) -> Result<Spawned, String> {
        let name = what.name;
        let (stdout, stderr) = (folder.join("stdout"), folder.join("stderr"));
        let file = |path: &Path| {
            std::fs::File::create(path)
                .map_err(|error| format!("{} can't be written: {error}", path.display()))
        };
        let parts = what.command.split_first();
        let (program, arguments) = parts.ok_or("a program without a command")?;
        machine::find(program).map_err(|error| format!("{name} can't be started: {error}"))?;
        let called = if what.called.is_empty() { program } else { what.called };
        let mut command = Command::new(machine::this_program()?);
        let parent = std::process::id().to_string();
        command.arg0(LEASH).args([&parent, called, program]).args(arguments);
        command.envs(what.environment.iter().cloned());
        command.stdin(Stdio::null()).stdout(file(&stdout)?).stderr(file(&stderr)?);
        let child = spawn_on(cores, command)
            .map_err(|error| format!("{name} can't be started ({program}): {error}"))?;
        Ok(Spawned { name: name.to_owned(), child, stdout, stderr })
    }

    pub fn pid(&self) -> u32 {
        self.child.id()
    }

    /// An error if it has ended.
    pub fn check(&mut self) -> Result<(), String> {
        match self.child.try_wait() {
            Ok(None) => Ok(()),
            Ok(Some(status)) => Err(self.death(status)),
            Err(error) => Err(format!("{} can't be watched: {error}", self.name)),
        }
    }

    /// Waits until something listens on each port of localhost.
    pub fn wait_for_ports(&mut self, ports: &[u16], patience: Duration) -> Result<(), String> {
        let deadline = Instant::now() + patience;
        for port in ports {
            while let Err(error) = std::net::TcpStream::connect(("127.0.0.1", *port)) {
                self.check()?;
                if Instant::now() > deadline {
                    return Err(format!(
                        "{} does not listen on port {port} after {patience:?}: {error}\n{}",
                        self.name,
                        last_lines(&self.stderr)
                    ));
                }
                std::thread::sleep(Duration::from_millis(2));
            }
        }
        Ok(())
    }

    /// Waits until there is a socket for datagrams on this port of localhost: one can't be tried by
    /// connecting to it, but the kernel lists it.
    pub fn wait_for_udp(&mut self, port: u16, patience: Duration) -> Result<(), String> {
        let deadline = Instant::now() + patience;
        while !machine::has_udp(port) {
            self.check()?;
            if Instant::now() > deadline {
                return Err(format!(
                    "{} does not listen on UDP port {port} after {patience:?}\n{}",
                    self.name,
                    last_lines(&self.stderr)
                ));
            }
            std::thread::sleep(Duration::from_millis(2));
        }
        Ok(())
    }

    /// SIGTERM, then its standard output once it has ended by itself.
    pub fn stop(mut self, patience: Duration) -> Result<String, String> {
        self.check()?;
        let pid = Pid::from_raw(self.child.id() as i32).expect("a process id is not 0");
        kill_process(pid, Signal::TERM)
            .map_err(|error| format!("{} can't be ended: {error}", self.name))?;
        let deadline = Instant::now() + patience;
        loop {
            match self.child.try_wait() {
                // Ended by the signal itself is an orderly end for programs that don't catch it.
                Ok(Some(status)) if status.success() || status.code().is_none() => break,
                Ok(Some(status)) => return Err(self.death(status)),
                Ok(None) if Instant::now() < deadline => {
                    std::thread::sleep(Duration::from_millis(2));
                }
                _ => return Err(format!("{} did not end within {patience:?}", self.name)),
            }
        }
        Ok(std::fs::read_to_string(&self.stdout).unwrap_or_default())
    }

    fn death(&self, status: ExitStatus) -> String {
        format!("{} ended by itself ({status})\n{}", self.name, last_lines(&self.stderr))
    }
}

impl Drop for Spawned {
    fn drop(&mut self) {
        // With all that it started: its process group is its own.
        if let Some(pid) = Pid::from_raw(self.child.id() as i32) {
            let _ = kill_process_group(pid, Signal::KILL);
        }
        let _ = self.child.wait();
    }
}

/// A child of our own kind: load, sink or floor.
pub struct Worker {
    name: String,
    child: Child,
    stdin: ChildStdin,
    events: Receiver<Event>,
    stderr: PathBuf,
}

impl Worker {
    /// Starts a subcommand of this very program. With several threads each pins itself.
    pub fn start(arguments: &[String], cores: &[usize], folder: &Path) -> Result<Worker, String> {
        let name = arguments.first().cloned().unwrap_or_default();
        let stderr = folder.join(format!("{name}.stderr"));
        let file = std::fs::File::create(&stderr)
            .map_err(|error| format!("{} can't be written: {error}", stderr.display()))?;
        let program = machine::this_program()?;
        let mut command = Command::new(&program);
        command.args(arguments).stdin(Stdio::piped()).stdout(Stdio::piped()).stderr(file);
        let mut child = spawn_on(cores, command)
            .map_err(|error| format!("the {name} can't be started: {error}"))?;
        let stdin = child.stdin.take().ok_or("a child without standard input")?;
        let stdout = child.stdout.take().ok_or("a child without standard output")?;
        let (sender, events) = channel();
        std::thread::spawn(move || {
            let lines = BufReader::new(stdout).lines().map_while(Result::ok);
            for event in lines.filter_map(|line| serde_json::from_str(&line).ok()) {
                if sender.send(event).is_err() {
                    break;
                }
            }
        });
        Ok(Worker { name, child, stdin, events, stderr })
    }

    pub fn pid(&self) -> u32 {
        self.child.id()
    }

    pub fn tell(&mut self, order: &Order) -> Result<(), String> {
        let line = serde_json::to_string(order).expect("orders are plain data");
        writeln!(self.stdin, "{line}").and_then(|()| self.stdin.flush()).map_err(|error| {
            format!(
                "the {} takes no orders any more: {error}\n{}",
                self.name,
                last_lines(&self.stderr)
            )
        })
    }

    pub fn hear(&mut self, patience: Duration) -> Result<Event, String> {
        self.events.recv_timeout(patience).map_err(|error| match error {
            RecvTimeoutError::Timeout => format!("the {} says nothing for {patience:?}", self.name),
            RecvTimeoutError::Disconnected => {
                let status = self.child.wait().map_or("?".to_owned(), |status| status.to_string());
                format!("the {} ended ({status})\n{}", self.name, last_lines(&self.stderr))
            }
        })
    }

    /// An error if it has ended.
    pub fn check(&mut self) -> Result<(), String> {
        match self.child.try_wait() {
            Ok(None) => Ok(()),
            Ok(Some(status)) => {
                Err(format!("the {} ended ({status})\n{}", self.name, last_lines(&self.stderr)))
            }
            Err(error) => Err(format!("the {} can't be watched: {error}", self.name)),
        }
    }
}

impl Drop for Worker {
    fn drop(&mut self) {
        let _ = self.child.kill();
        let _ = self.child.wait();
    }
}

/// A child inherits the cores of the thread that starts it, which is ours for as long as that
/// takes. Its process group is its own: Ctrl-C is for us, and we end the children in order.
fn spawn_on(cores: &[usize], mut command: Command) -> std::io::Result<Child> {
    command.process_group(0);
    machine::pinned(cores, || command.spawn())
}

/// The first argument of this program when it only ties another to its parent's life.
pub const LEASH: &str = "forebay-bench-leash";

/// Becomes the program that the arguments say (the id of the process that started it, its name, its
/// path, its arguments), which the kernel kills when that process ends, however that came about.
pub fn leash(mut arguments: impl Iterator<Item = OsString>) -> ExitCode {
    let (Some(parent), Some(called), Some(program)) =
        (arguments.next(), arguments.next(), arguments.next())
    else {
        eprintln!("error: {LEASH} PARENT NAME PROGRAM [ARGUMENT ...]");
        return ExitCode::FAILURE;
    };
    if let Err(error) = set_parent_process_death_signal(Some(Signal::KILL)) {
        eprintln!("if forebay-bench is killed, {} will run on: {error}", program.display());
    }
    // It may have ended before the kernel was told.
    let is_there = getppid().is_some_and(|pid| parent == pid.as_raw_nonzero().to_string().as_str());
    if !is_there {
        return ExitCode::FAILURE;
    }
    let error = Command::new(&program).arg0(&called).args(arguments).exec();
    eprintln!("{}: {error}", program.display());
    ExitCode::FAILURE
}

fn last_lines(path: &Path) -> String {
    let text = std::fs::read(path).unwrap_or_default();
    let text = String::from_utf8_lossy(&text);
    let lines: Vec<&str> = text.lines().collect();
    let last = &lines[lines.len().saturating_sub(LAST_WORDS)..];
    let last: Vec<String> = last.iter().map(|line| format!("  | {line}")).collect();
    if last.is_empty() { "  (it said nothing)".to_owned() } else { last.join("\n") }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn engine_and_load_share_a_core_only_when_there_is_one() {
        let place = |engine, cores: usize| {
            let cores: Vec<usize> = (0..cores).collect();
            let placement = Placement::choose(engine, &cores);
            (placement.engine.len(), placement.load.len(), placement.sink.len())
        };
        assert_eq!(place(1, 1), (1, 1, 1));
        assert!(Placement::choose(1, &[0]).warning().is_some());
        assert_eq!(place(1, 2), (1, 1, 1));
        assert!(Placement::choose(1, &[0, 1]).warning().is_none());
        assert_eq!(place(8, 2), (1, 1, 1), "one core is left for the load");
        assert_eq!(place(1, 4), (1, 2, 1));
        assert_eq!(place(16, 64), (16, 24, 24));
    }
}
