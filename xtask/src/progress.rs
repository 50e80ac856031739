//! Running commands so that a person sees what goes on.
use std::{
    fs::File,
    io::{self, Read, Seek, Write},
    process::{Command, ExitStatus, Stdio},
    sync::mpsc,
    thread,
    time::{Duration, Instant},
};

use anyhow::{Context, bail};

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
    let status = thread::scope(|scope| {
        scope.spawn(move || {
            while finished.recv_timeout(Duration::from_secs(10)) == Err(mpsc::RecvTimeoutError::Timeout) {
                println!("  ... {} s", started.elapsed().as_secs());
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
    println!("  $ {}", shown(command));
    let mut child = command
        .stdin(Stdio::null())
        .stdout(Stdio::piped())
        .stderr(Stdio::piped())
        .spawn()
        .with_context(|| format!("cannot run {}", command.get_program().to_string_lossy()))?;
    let (output, errors) = (child.stdout.take(), child.stderr.take());
    thread::scope(|scope| {
        scope.spawn(move || errors.map(|mut errors| io::copy(&mut errors, &mut io::stderr())));
        if let Some(mut output) = output {
            let mut shown = io::stdout();
            let mut buffer = [0; 4096];
            while let Ok(count @ 1..) = output.read(&mut buffer) {
                let _ = shown.write_all(&buffer[..count]).and_then(|()| shown.flush());
            }
        }
    });
    Ok(child.wait()?)
}

fn tempfile() -> anyhow::Result<File> {
    let path = std::env::temp_dir().join(format!("xtask-{}-{:?}", std::process::id(), Instant::now()));
    let file = File::options().read(true).write(true).create_new(true).open(&path)?;
    std::fs::remove_file(path)?;
    Ok(file)
}
