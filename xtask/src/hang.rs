//! What processes that hang are at, by `/proc`: a test that hangs on another machine is seen only once.
use std::{fs, path::Path, process::Command};

/// A process and what it is called.
pub struct Process {
    pub pid: u32,
    pub line: String,
}

/// Shows what a process and all that it started are at, and kills them: itself first, so that it starts nothing more.
pub fn end(pid: u32) {
    let processes = tree(pid);
    processes.iter().for_each(show);
    for process in processes {
        let _ = Command::new("kill").args(["-9", &process.pid.to_string()]).status();
    }
}

/// A process and all that it started, each after who started it.
pub fn tree(pid: u32) -> Vec<Process> {
    let all: Vec<(u32, u32)> = fs::read_dir("/proc")
        .into_iter()
        .flatten()
        .filter_map(|entry| {
            let pid: u32 = entry.ok()?.file_name().to_str()?.parse().ok()?;
            // Behind the name, which may hold anything.
            let stat = fs::read_to_string(format!("/proc/{pid}/stat")).ok()?;
            let parent = stat.rsplit_once(')')?.1.split_whitespace().nth(1)?.parse().ok()?;
            Some((pid, parent))
        })
        .collect();
    let mut found = vec![pid];
    let mut at = 0;
    while let Some(parent) = found.get(at).copied() {
        found.extend(all.iter().filter(|process| process.1 == parent).map(|process| process.0));
        at += 1;
    }
    let line = |pid| String::from_utf8_lossy(&fs::read(format!("/proc/{pid}/cmdline")).unwrap_or_default()).replace('\0', " ");
    found.into_iter().map(|pid| Process { pid, line: line(pid) }).collect()
}

/// Its threads: name, state, where in the kernel it waits, and in which system call, with its arguments. Many that are alike are shown once.
fn show(process: &Process) {
    println!("  {} {}", process.pid, process.line);
    let mut threads: Vec<(String, u32)> = Vec::new();
    for task in fs::read_dir(format!("/proc/{}/task", process.pid)).into_iter().flatten().flatten() {
        let of = |file: &str| first_line(&task.path().join(file));
        let state = of("stat").rsplit_once(')').and_then(|(_, rest)| rest.split_whitespace().next().map(str::to_owned));
        let text = format!("{} {} {} {}", of("comm"), state.unwrap_or_default(), of("wchan"), of("syscall"));
        match threads.iter_mut().find(|(known, _)| *known == text) {
            Some((_, count)) => *count += 1,
            None => threads.push((text, 1)),
        }
    }
    for (text, count) in threads {
        println!("    {count} x {text}");
    }
}

fn first_line(file: &Path) -> String {
    fs::read_to_string(file).unwrap_or_default().lines().next().unwrap_or_default().to_owned()
}
