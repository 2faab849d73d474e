//! Child processes whose output is kept while they run, and that never outlive their handle.

use rustix::process::{Pid, Signal, kill_process};
use std::io::{BufRead, BufReader, Read};
use std::process::{Child, Command, ExitStatus, Stdio};
use std::sync::{Arc, Condvar, Mutex, MutexGuard, PoisonError};
use std::thread::{self, JoinHandle};
use std::time::{Duration, Instant};

/// How often a child is asked whether it has ended.
const POLL_INTERVAL: Duration = Duration::from_millis(5);

/// What a finished process left behind.
#[derive(Clone, Debug)]
pub struct Exit {
    /// Exit code, or `None` if a signal ended it.
    pub code: Option<i32>,
    /// Everything it wrote to standard output.
    pub stdout: String,
    /// Everything it wrote to standard error.
    pub stderr: String,
}

/// A running child process. Killed when dropped.
#[derive(Debug)]
pub struct Process {
    child: Child,
    name: String,
    stdout: Captured,
    stderr: Captured,
    readers: Vec<JoinHandle<()>>,
}

/// Text of one stream so far, and whether more can come.
#[derive(Clone, Debug, Default)]
struct Captured(Arc<(Mutex<Stream>, Condvar)>);

#[derive(Debug, Default)]
struct Stream {
    text: String,
    has_ended: bool,
}

impl Exit {
    /// Standard output of a process that succeeded.
    ///
    /// # Panics
    /// If it did not, with all it said.
    #[track_caller]
    #[must_use = "use `let _ =` if the output does not matter"]
    pub fn expect_success(self, what: &str) -> String {
        assert!(self.code == Some(0), "{what}: {:?}\n{}{}", self.code, self.stdout, self.stderr);
        self.stdout
    }
}

impl Process {
    /// Starts `command` with empty standard input and both outputs captured.
    ///
    /// # Panics
    /// If it cannot be started.
    #[must_use]
    pub fn spawn(mut command: Command) -> Self {
        let name = format!("{command:?}");
        let mut child = command
            .stdin(Stdio::null())
            .stdout(Stdio::piped())
            .stderr(Stdio::piped())
            .spawn()
            .unwrap_or_else(|error| panic!("start {name}: {error}"));
        let (stdout, stderr) = (Captured::default(), Captured::default());
        let mut readers = Vec::new();
        if let Some(pipe) = child.stdout.take() {
            readers.push(stdout.fill_from(pipe));
        }
        if let Some(pipe) = child.stderr.take() {
            readers.push(stderr.fill_from(pipe));
        }
        Self { child, name, stdout, stderr, readers }
    }

    /// Process id.
    #[must_use]
    pub fn pid(&self) -> u32 {
        self.child.id()
    }

    /// Standard output so far.
    #[must_use]
    pub fn stdout(&self) -> String {
        self.stdout.lock().text.clone()
    }

    /// Standard error so far.
    #[must_use]
    pub fn stderr(&self) -> String {
        self.stderr.lock().text.clone()
    }

    /// Waits until standard output has a line equal to `line`; false if the process closed it or time ran out.
    #[must_use]
    pub fn wait_for_line(&self, line: &str, timeout: Duration) -> bool {
        self.stdout.wait_for(timeout, |text| text.lines().any(|have| have == line))
    }

    /// Waits until standard error contains `text`; false if the process closed it or time ran out.
    #[must_use]
    pub fn wait_for_stderr(&self, text: &str, timeout: Duration) -> bool {
        self.stderr.wait_for(timeout, |have| have.contains(text))
    }

    /// Sends a signal.
    ///
    /// # Panics
    /// If the process has been waited for already.
    pub fn signal(&self, signal: Signal) {
        let pid =
            i32::try_from(self.child.id()).ok().and_then(Pid::from_raw).expect("a child has a process id");
        kill_process(pid, signal).unwrap_or_else(|error| panic!("signal {}: {error}", self.name));
    }

    /// Whether it still runs.
    ///
    /// # Panics
    /// If the kernel does not know the child, which would be a bug here.
    #[must_use]
    pub fn is_running(&mut self) -> bool {
        self.child.try_wait().expect("our child can be waited for").is_none()
    }

    /// Waits for the end.
    ///
    /// # Panics
    /// If it has not ended after `timeout`; it is killed then.
    #[track_caller]
    pub fn wait(mut self, timeout: Duration) -> Exit {
        match self.wait_at_most(timeout) {
            Some(status) => self.collect(status),
            None => panic!("{} still runs after {timeout:?}\n{}{}", self.name, self.stdout(), self.stderr()),
        }
    }

    /// The same for who can go on without it.
    ///
    /// # Errors
    /// If it has not ended after `timeout`: what it said until it was killed.
    pub fn try_wait(mut self, timeout: Duration) -> Result<Exit, Exit> {
        match self.wait_at_most(timeout) {
            Some(status) => Ok(self.collect(status)),
            None => Err(self.kill()),
        }
    }

    /// Kills it as `kill -9` does and waits for the end.
    ///
    /// # Panics
    /// If even that does not end it.
    pub fn kill(mut self) -> Exit {
        let _ = self.child.kill();
        let status = self.child.wait().expect("our child can be waited for");
        self.collect(status)
    }

    fn wait_at_most(&mut self, timeout: Duration) -> Option<ExitStatus> {
        let deadline = Instant::now() + timeout;
        loop {
            match self.child.try_wait() {
                Ok(Some(status)) => return Some(status),
                Ok(None) if Instant::now() < deadline => thread::sleep(POLL_INTERVAL),
                Ok(None) | Err(_) => return None,
            }
        }
    }

    fn collect(&mut self, status: ExitStatus) -> Exit {
        for reader in self.readers.drain(..) {
            let _ = reader.join();
        }
        Exit { code: status.code(), stdout: self.stdout(), stderr: self.stderr() }
    }
}

impl Drop for Process {
    fn drop(&mut self) {
        let _ = self.child.kill();
        let _ = self.child.wait();
    }
}

impl Captured {
    fn lock(&self) -> MutexGuard<'_, Stream> {
        self.0.0.lock().unwrap_or_else(PoisonError::into_inner)
    }

    fn fill_from(&self, pipe: impl Read + Send + 'static) -> JoinHandle<()> {
        let captured = self.clone();
        thread::spawn(move || {
            let mut reader = BufReader::new(pipe);
            let mut line = Vec::new();
            while matches!(reader.read_until(b'\n', &mut line), Ok(1..)) {
                captured.lock().text.push_str(&String::from_utf8_lossy(&line));
                captured.0.1.notify_all();
                line.clear();
            }
            captured.lock().has_ended = true;
            captured.0.1.notify_all();
        })
    }

    fn wait_for(&self, timeout: Duration, is_there: impl Fn(&str) -> bool) -> bool {
        let (stream, _) = self
            .0
            .1
            .wait_timeout_while(self.lock(), timeout, |stream| !is_there(&stream.text) && !stream.has_ended)
            .unwrap_or_else(PoisonError::into_inner);
        is_there(&stream.text)
    }
}

/// Runs a program that must succeed and returns its standard output.
#[track_caller]
pub(super) fn run(program: &str, args: &[&str]) -> String {
    let output = Command::new(program).args(args).output().unwrap_or_else(|error| {
        panic!("start {program}: {error}; scripts/test installs what the tests need")
    });
    assert!(
        output.status.success(),
        "{program} {}: {}",
        args.join(" "),
        String::from_utf8_lossy(&output.stderr)
    );
    String::from_utf8_lossy(&output.stdout).into_owned()
}
