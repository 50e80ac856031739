//! Running commands so that a person sees what goes on.
use std::{
    fs::File,
    io::{self, Read, Seek, Write},
    process::{Child, Command, ExitStatus, Stdio},
    sync::mpsc,
    thread,
    time::{Duration, Instant},
};

use anyhow::{Context, bail};

use crate::hang;

/// A command as one would type it.
pub fn shown(command: &Command) -> String {
    let words = std::iter::once(command.get_program()).chain(command.get_args());
    let words: Vec<String> = words
        .map(|word| {
            let word = word.to_string_lossy();
            if word.contains([' ', ';', '\'', '"']) { format!("{word:?}") } else { word.into_owned() }
        })
        .collect();
    let line = words.join(" ");
    if line.chars().count() > 160 { line.chars().take(157).chain("...".chars()).collect() } else { line }
}

/// Runs a command with its output kept back; a failure shows it. Anything that takes long says so every 10 seconds.
pub fn quietly(what: &str, command: &mut Command) -> anyhow::Result<()> {
    quietly_within(Duration::MAX, what, command)
}

/// The same, for what may hang: after `limit` it is killed with all that it started, and what they were at is shown.
pub fn quietly_within(limit: Duration, what: &str, command: &mut Command) -> anyhow::Result<()> {
    let started = Instant::now();
    println!("· {what}\n  $ {}", shown(command));
    let mut output = tempfile()?;
    let mut child = command
        .stdin(Stdio::null())
        .stdout(output.try_clone()?)
        .stderr(output.try_clone()?)
        .spawn()
        .with_context(|| format!("cannot run {}", command.get_program().to_string_lossy()))?;
    let (done, finished) = mpsc::channel::<()>();
    let pid = child.id();
    let status = thread::scope(|scope| {
        scope.spawn(move || {
            let next = || limit.saturating_sub(started.elapsed()).min(Duration::from_secs(10));
            while finished.recv_timeout(next()) == Err(mpsc::RecvTimeoutError::Timeout) {
                if started.elapsed() < limit {
                    println!("  ... {} s", started.elapsed().as_secs());
                    continue;
                }
                println!("  not done in {} s; what it was at:", limit.as_secs());
                hang::end(pid);
                let _ = finished.recv();
            }
        });
        let status = child.wait();
        drop(done);
        status
    })?;
    if !status.success() {
        let mut text = String::new();
        output.rewind()?;
        output.read_to_string(&mut text)?;
        let tail: Vec<&str> = text.lines().rev().take(60).collect();
        tail.iter().rev().for_each(|line| eprintln!("  {line}"));
        bail!("{what}: {status}");
    }
    if started.elapsed() > Duration::from_secs(2) {
        println!("  done in {} s", started.elapsed().as_secs());
    }
    Ok(())
}

/// Runs a command with its output shown as it comes. Through pipes: the virtual machine opens its standard output anew, which would
/// truncate a file.
pub fn loudly(command: &mut Command) -> anyhow::Result<ExitStatus> {
    let mut child = piped(command)?;
    show(&mut child, |_| ());
    Ok(child.wait()?)
}

/// The same, for a command that prints `mark` as soon as it got anywhere. One that runs for `limit` without it is told to end: `None` then.
pub fn loudly_past(mark: &str, limit: Duration, command: &mut Command) -> anyhow::Result<Option<ExitStatus>> {
    let mut child = piped(command)?;
    let pid = child.id().to_string();
    let (seen, wait) = mpsc::channel::<()>();
    let stuck = thread::scope(|scope| {
        let watcher = scope.spawn(move || {
            let stuck = wait.recv_timeout(limit) == Err(mpsc::RecvTimeoutError::Timeout);
            // Not waited for yet, so that the number is still its own.
            stuck && Command::new("kill").arg(&pid).status().is_ok()
        });
        let mut text = Vec::new();
        show(&mut child, |bytes| {
            text.extend_from_slice(bytes);
            if text.windows(mark.len()).any(|window| window == mark.as_bytes()) {
                let _ = seen.send(());
            }
            // A mark can come in two pieces.
            text.drain(..text.len().saturating_sub(mark.len()));
        });
        drop(seen);
        watcher.join().unwrap_or(false)
    });
    let status = child.wait()?;
    Ok((!stuck).then_some(status))
}

/// Started, with its output in pipes.
fn piped(command: &mut Command) -> anyhow::Result<Child> {
    println!("  $ {}", shown(command));
    command
        .stdin(Stdio::null())
        .stdout(Stdio::piped())
        .stderr(Stdio::piped())
        .spawn()
        .with_context(|| format!("cannot run {}", command.get_program().to_string_lossy()))
}

/// Shows what it prints, until it closes its output. `each` is given each piece of standard output.
fn show(child: &mut Child, mut each: impl FnMut(&[u8])) {
    let (output, errors) = (child.stdout.take(), child.stderr.take());
    thread::scope(|scope| {
        scope.spawn(move || errors.map(|mut errors| io::copy(&mut errors, &mut io::stderr())));
        if let Some(mut output) = output {
            let mut shown = io::stdout();
            let mut buffer = [0; 4096];
            while let Ok(count @ 1..) = output.read(&mut buffer) {
                let _ = shown.write_all(&buffer[..count]).and_then(|()| shown.flush());
                each(&buffer[..count]);
            }
        }
    });
}

fn tempfile() -> anyhow::Result<File> {
    let path = std::env::temp_dir().join(format!("xtask-{}-{:?}", std::process::id(), Instant::now()));
    let file = File::options().read(true).write(true).create_new(true).open(&path)?;
    std::fs::remove_file(path)?;
    Ok(file)
}

#[cfg(test)]
mod tests {
    use super::*;

    fn shell(script: &str) -> Command {
        let mut command = Command::new("sh");
        command.args(["-c", script]);
        command
    }

    #[test]
    fn a_command_that_says_its_mark_runs_on() {
        let status =
            loudly_past("up now", Duration::from_secs(2), &mut shell("printf 'up '; sleep 0.1; echo now; sleep 3; exit 7"));
        assert_eq!(status.unwrap().and_then(|status| status.code()), Some(7));
    }

    #[test]
    fn one_that_does_not_is_ended() {
        let started = Instant::now();
        let status = loudly_past("up now", Duration::from_millis(200), &mut shell("echo up; exec sleep 60"));
        assert!(status.unwrap().is_none() && started.elapsed() < Duration::from_secs(30));
    }

    #[test]
    fn what_hangs_is_ended_with_all_that_it_started() {
        let started = Instant::now();
        let outcome = quietly_within(Duration::from_secs(1), "a test", &mut shell("sh -c 'sleep 10047; :'; :"));
        assert!(outcome.is_err() && started.elapsed() < Duration::from_secs(60), "{outcome:?}");
        // What lost its parent belongs to the first process, or to one below.
        let lives = || hang::tree(1).iter().any(|process| process.line.contains("sleep 10047"));
        while lives() {
            assert!(started.elapsed() < Duration::from_secs(60), "something of it lives on");
            thread::sleep(Duration::from_millis(10));
        }
    }

    #[test]
    fn one_that_ends_before_is_not_stuck() {
        let status = loudly_past("up now", Duration::from_secs(60), &mut shell("exit 3"));
        assert_eq!(status.unwrap().and_then(|status| status.code()), Some(3));
    }
}
