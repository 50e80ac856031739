//! A disk in a file whose handler can be told to fail: what a host and its daemon do then is what the end-to-end tests look at.
//!
//! `fault/<path>` serves the file. With the next request after one of these words was written to `<path>.fault` it
//!
//! | word | does |
//! |---|---|
//! | `segv`, `abort`, `exit` | ends its process that way |
//! | `hang` | does not return, until `<path>.go` is there |
//! | `keep` | does not complete that request until `<path>.go` is there, and goes on with others |
//!
//! and removes `<path>.fault`, unless `always` stands behind the word. While `<path>.check` is there its config string is judged when
//! `<path>.go` is there. Changes of the size obey `abort` and `hang` too, and are made by half and refused with `refuse`. Opening takes
//! as long as `<path>.wait` is there.
use std::{
    fs::{self, File},
    os::fd::AsFd,
    path::Path,
    thread,
    time::Duration,
};

use tcmu_handler_api::{plugin::FileIo, prelude::*};

struct Fault {
    path: String,
    file: File,
}

impl Handler for Fault {
    const INFO: HandlerInfo = HandlerInfo {
        subtype: c"fault",
        name: c"File with a handler that fails on demand",
        version: c"1.0",
        config_desc: c"fault/<path>: a disk in a file; what is written to <path>.fault says how its handler fails",
    };

    fn check_config(config: &str) -> Result<(), Refusal> {
        if Path::new(&format!("{config}.check")).exists() {
            wait_for(&format!("{config}.go"));
        }
        Ok(())
    }

    fn open(open: &Open<'_>, info: &mut DeviceInfo) -> Result<Fault, Refusal> {
        let path = open.config().to_owned();
        let refuse = |error: std::io::Error| Refusal::io(&path, &error);
        while Path::new(&format!("{path}.wait")).exists() {
            thread::sleep(Duration::from_millis(20));
        }
        let file = File::options().read(true).write(true).create(true).truncate(false).open(&path).map_err(refuse)?;
        file.set_len(info.size()).map_err(refuse)?;
        info.supports(Operations::FLUSH);
        Ok(Fault { path, file })
    }
}

impl Device for Fault {
    const THREADS: Threads = Threads::Inline;

    fn reconfigure(&self, change: Change<'_>, _info: &mut DeviceInfo) -> Result<(), Refusal> {
        let Change::Size(bytes) = change else { return Err(Refusal::unsupported("only the size can be changed")) };
        self.resize(bytes)
    }

    fn submit(&self, batch: Batch<'_>) {
        let mut kept = false;
        match self.wanted().as_deref() {
            // SAFETY: there is none; this is to be a crash.
            Some("segv") => unsafe { std::ptr::without_provenance_mut::<u8>(8).write_volatile(0) },
            Some("abort") => std::process::abort(),
            Some("exit") => std::process::exit(3),
            Some("hang") => wait_for(&format!("{}.go", self.path)),
            Some("keep") => kept = true,
            _ => {}
        }
        for request in batch {
            if std::mem::take(&mut kept) {
                let (go, file) = (format!("{}.go", self.path), self.file.try_clone());
                thread::spawn(move || {
                    wait_for(&go);
                    match file {
                        Ok(file) => serve(&file, request),
                        Err(_) => request.complete(Err(Error::UNSUPPORTED)),
                    }
                });
                continue;
            }
            serve(&self.file, request);
        }
    }
}

impl Fault {
    fn resize(&self, bytes: u64) -> Result<(), Refusal> {
        self.file.set_len(bytes).map_err(|error| Refusal::io(&self.path, &error))?;
        match self.wanted().as_deref() {
            Some("refuse") => Err(Refusal::io("as it was told to", &std::io::Error::from_raw_os_error(28))),
            Some("abort") => std::process::abort(),
            Some("hang") => {
                wait_for(&format!("{}.go", self.path));
                Ok(())
            }
            _ => Ok(()),
        }
    }

    fn wanted(&self) -> Option<String> {
        let path = format!("{}.fault", self.path);
        let text = fs::read_to_string(&path).ok()?;
        let word = text.split_whitespace().next()?.to_owned();
        if !text.contains("always") {
            let _ = fs::remove_file(&path);
        }
        Some(word)
    }
}

fn wait_for(path: &str) {
    while !Path::new(path).exists() {
        thread::sleep(Duration::from_millis(20));
    }
}

fn serve(file: &File, request: Request) {
    let (offset, length) = (request.offset(), request.length());
    let io = match request.operation() {
        Operation::Read => FileIo::read(file.as_fd(), offset, length),
        Operation::Write => FileIo::write(file.as_fd(), offset, length),
        Operation::Flush => FileIo::datasync(file.as_fd()),
        _ => return request.complete(Err(Error::UNSUPPORTED)),
    };
    request.io(io);
}

export_handler!(Fault);
