//! The example that shows the crate's API keeps what it promises.
//!
//! Runs the example's binary, which cargo builds with the tests. Always: the process ends with the
//! test, and what it said is shown if something is wrong.

use std::path::PathBuf;
use std::process::{Child, Command, ExitStatus, Stdio};
use std::thread::JoinHandle;
use std::time::{Duration, Instant};

/// It must end by itself before that, whatever else the machine has to do.
const LASTS_AT_MOST: Duration = Duration::from_secs(120);

#[test]
fn three_services_lose_no_call_and_stay_fast_while_one_replica_misbehaves() {
    let seed = fastrand::u64(..100_000);
    let (status, said) = Demo::start(seed).play();
    assert!(status.success() && !said.contains("BROKEN"), "{status}\n{said}");
    for word in ["SEED=", "circuit open for", "circuit half-open", "circuit closed: 3 probes"] {
        assert!(said.contains(word), "{word} was not told:\n{said}");
    }
    for trouble in ["is slower by", "answers 503", "hangs", "is gone", "is back"] {
        let trouble = format!("--- payments-2 {trouble}");
        assert!(said.contains(&trouble), "{trouble} was not told:\n{said}");
    }
    let kept = said.lines().filter(|line| line.starts_with("kept")).count();
    assert!(kept >= 17, "it promised only {kept} things:\n{said}");
}

/// So nothing in it hangs on how fast the machine is, or on what else it has to do.
#[test]
fn the_same_seed_tells_the_same_story_to_the_letter() {
    let seed = fastrand::u64(..100_000);
    let (one, other) = (Demo::start(seed), Demo::start(seed));
    let ((_, one), (_, other)) = (one.play(), other.play());
    let mut lines = one.lines().zip(other.lines());
    let differs = lines.find(|(one, other)| one != other);
    assert_eq!(differs, None, "SEED={seed}");
    assert_eq!(one.len(), other.len(), "SEED={seed}: one goes on longer");
    assert!(one.contains("circuit open for"), "SEED={seed}: there was nothing to compare:\n{one}");
}

struct Demo {
    child: Child,
    /// Standard output, to its end.
    reader: Option<JoinHandle<String>>,
}

impl Demo {
    fn start(seed: u64) -> Demo {
        let program = program();
        let found = program.is_file();
        assert!(found, "{}: build it: cargo build --examples", program.display());
        let mut child = Command::new(program)
            .env("SEED", seed.to_string())
            .stdin(Stdio::null())
            .stdout(Stdio::piped())
            .spawn()
            .expect("it starts");
        let stdout = child.stdout.take().expect("it is a pipe");
        let reader = std::thread::spawn(|| std::io::read_to_string(stdout).expect("it is text"));
        Demo { child, reader: Some(reader) }
    }

    /// From begin to end: the exit status, and all that was said.
    fn play(mut self) -> (ExitStatus, String) {
        let begun = Instant::now();
        loop {
            if let Some(status) = self.child.try_wait().expect("it is our child") {
                return (status, self.said());
            }
            assert!(begun.elapsed() < LASTS_AT_MOST, "it has not ended:\n{}", self.said());
            std::thread::sleep(Duration::from_millis(50));
        }
    }

    /// All of it; ends the process.
    fn said(&mut self) -> String {
        // It has ended already unless it is late.
        let _ = self.child.kill();
        let reader = self.reader.take().expect("asked once");
        reader.join().expect("it reads to the end")
    }
}

impl Drop for Demo {
    fn drop(&mut self) {
        let _ = self.child.kill();
        let _ = self.child.wait();
    }
}

fn program() -> PathBuf {
    let test = std::env::current_exe().expect("a test has a path");
    let folder = test.parent().and_then(|deps| deps.parent()).expect("target/PROFILE/deps");
    folder.join("examples").join("microservices_demo")
}
