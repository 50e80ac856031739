//! The checks that every handler has to pass.
use std::time::Duration;

use super::{
    device::{BenchDevice, Done, Segments, Send},
    report::{Check, Report, Verdict},
};
use crate::{
    abi,
    host::Plugin,
    plugin::{Change, DeviceFlags, DeviceInfo, Operations, Refusal},
};

/// How the bench is run.
#[derive(Clone, Debug)]
pub struct Options {
    /// Bytes of the device.
    pub size: u64,
    /// Logical block size in bytes.
    pub block_size: u32,
    /// Seed of the random numbers.
    pub seed: u64,
    /// How long a request may take.
    pub timeout: Duration,
}

impl Default for Options {
    fn default() -> Options {
        Options { size: 16 << 20, block_size: 512, seed: 0x7c3a_11d5, timeout: Duration::from_secs(10) }
    }
}

/// A simple generator: the same numbers everywhere (xorshift64*).
struct Random(u64);

impl Random {
    fn next(&mut self) -> u64 {
        self.0 ^= self.0 >> 12;
        self.0 ^= self.0 << 25;
        self.0 ^= self.0 >> 27;
        self.0.wrapping_mul(0x2545_f491_4f6c_dd1d)
    }

    fn below(&mut self, limit: u64) -> u64 {
        (self.next() >> 16) % limit.max(1)
    }

    fn bytes(&mut self, length: usize) -> Vec<u8> {
        (0..length).map(|_| (self.next() >> 40) as u8).collect()
    }
}

type Outcome = Result<(), String>;

struct Run<'a> {
    plugin: &'a Plugin,
    config: &'a str,
    options: &'a Options,
    random: Random,
    report: Report,
}

/// Runs all checks. A handler that hangs or crashes requests is reported, not waited for.
pub fn conformance(plugin: &Plugin, config: &str, options: &Options) -> Report {
    let subject = format!("{} {}", plugin.subtype(), plugin.version());
    let report = Report { subject, seed: options.seed, checks: Vec::new() };
    let mut run = Run { plugin, config, options, random: Random(options.seed | 1), report };
    run.all();
    run.report
}

impl Run<'_> {
    fn all(&mut self) {
        let (plugin, config) = (self.plugin, self.config);
        self.check("texts are there", || {
            let texts = [plugin.name(), plugin.version(), plugin.config_desc()];
            expect(texts.iter().all(|text| !text.is_empty()), "name, version and config_desc say something", &texts)
        });
        self.check("the config string is accepted", || plugin.check_config(config).map_err(|refusal| refusal.to_string()));
        self.refusals();
        let device = match self.open() {
            Ok(device) => device,
            Err(refusal) => return self.add("the device opens", Verdict::Failed(refusal.to_string())),
        };
        self.add("the device opens", Verdict::Passed);
        let info = *device.info();
        let block = u64::from(info.block_size());
        self.check("what it says of itself makes sense", || {
            expect(
                info.size() > 0 && info.size().is_multiple_of(block),
                "the size is a multiple of the block size",
                &info.size(),
            )?;
            let reads = info.operations().contains(Operations::READ) || info.flags().contains(DeviceFlags::SCSI);
            expect(reads, "it can be read", &info.operations())
        });
        if info.flags().contains(DeviceFlags::SCSI) {
            self.scsi(&device);
        } else {
            self.block_device(&device);
        }
        self.rest(&device);
        drop(device);
        self.reopen();
    }

    fn open(&self) -> Result<BenchDevice, Refusal> {
        let mut info = DeviceInfo::new(self.options.size, self.options.block_size);
        info.set_flags(DeviceFlags::WRITE_CACHE, true);
        let mut device = BenchDevice::open(self.plugin, self.config, info)?;
        device.set_timeout(self.options.timeout);
        Ok(device)
    }

    fn add(&mut self, name: &'static str, verdict: Verdict) {
        self.report.checks.push(Check { name, verdict });
    }

    fn check(&mut self, name: &'static str, check: impl FnOnce() -> Outcome) {
        self.add(name, check().map_or_else(Verdict::Failed, |()| Verdict::Passed));
    }

    /// Config strings that are wrong are refused with a line, not with a crash.
    fn refusals(&mut self) {
        const NAME: &str = "wrong config strings are refused in one line";
        let wrong = ["", ";", "\u{1}", ";nonsense=1", ";;==;"];
        let refused: Vec<_> = wrong.iter().filter_map(|config| Some((config, self.plugin.check_config(config).err()?))).collect();
        if refused.is_empty() {
            return self.add(NAME, Verdict::NotApplicable("it takes any config string".into()));
        }
        self.check(NAME, || {
            for (config, refusal) in &refused {
                let one_line = !refusal.message().is_empty() && !refusal.message().contains('\n');
                expect(one_line, "one line says what is wrong", &(config, refusal.message()))?;
            }
            Ok(())
        });
        let (config, plugin, options) = (refused[0].0, self.plugin, self.options);
        self.check("a refused config string does not open", || {
            match BenchDevice::open(plugin, config, DeviceInfo::new(options.size, options.block_size)) {
                Ok(_) => Err(format!("{config:?} opened, although check_config refuses it")),
                Err(refusal) => expect(!refusal.message().is_empty(), "a reason", &refusal),
            }
        });
    }

    fn block_device(&mut self, device: &BenchDevice) {
        let info = *device.info();
        if info.flags().contains(DeviceFlags::READ_ONLY) {
            let block = info.block_size() as usize;
            return self.check("a read-only device refuses writes", || {
                let done = finished(device.write(0, &vec![1; block]))?;
                expect(done.status < 0, "a negative status", &done.status)
            });
        }
        // A handler that keeps no data (null) says so by reading zeros everywhere; then only that is checked.
        let keeps = self.keeps_data(device);
        match keeps {
            Ok(true) => self.data(device),
            Ok(false) => self.add("data is kept", Verdict::NotApplicable("it reads zeros whatever is written".into())),
            Err(reason) => return self.add("what is written is read", Verdict::Failed(reason)),
        }
        self.concurrency(device, keeps == Ok(true));
        self.operations(device, keeps == Ok(true));
    }

    fn keeps_data(&mut self, device: &BenchDevice) -> Result<bool, String> {
        let length = (8 * u64::from(device.info().block_size())).min(device.info().size()) as usize;
        let data = self.random.bytes(length);
        good(device.write(0, &data))?;
        let read = good(device.read(0, length))?;
        match read.data {
            read if read == data => Ok(true),
            read if read.iter().all(|byte| *byte == 0) => Ok(false),
            read => Err(format!("wrote {}, read {}", shown(&data), shown(&read))),
        }
    }

    fn data(&mut self, device: &BenchDevice) {
        let info = *device.info();
        let (block, size) = (u64::from(info.block_size()), info.size());
        let blocks = size / block;
        let mut random = Random(self.random.next() | 1);
        self.check("the last block is written and read", || {
            let data = random.bytes(block as usize);
            good(device.write(size - block, &data))?;
            same(&data, &good(device.read(size - block, block as usize))?.data, size - block)
        });
        self.check("random writes are read back, whole and in parts", || {
            let window = blocks.min(512);
            let mut model = random.bytes((window * block) as usize);
            good(device.write(0, &model))?;
            for _ in 0..300 {
                let first = random.below(window);
                let count = 1 + random.below((window - first).min(64));
                let range = (first * block) as usize..((first + count) * block) as usize;
                if random.below(2) == 0 {
                    let data = random.bytes(range.len());
                    good(device.write(range.start as u64, &data))?;
                    model[range].copy_from_slice(&data);
                } else {
                    let read = good(device.read(range.start as u64, range.len()))?;
                    same(&model[range.clone()], &read.data, range.start as u64)?;
                }
            }
            same(&model, &good(device.read(0, model.len()))?.data, 0)
        });
        self.check("data in many segments of any length and alignment arrives", || {
            for lengths in [vec![1], vec![1, 3, 5], vec![511, 1], vec![4096, 13], vec![7; 3]] {
                let data = random.bytes(8 * block as usize);
                let segments = Segments::Of(lengths.clone());
                let write = Send::new(abi::TCMU_OP_WRITE, block, data.len() as u64).data(data.clone());
                good(device.one(write.segments(segments.clone())))?;
                same(&data, &good(device.read(block, data.len()))?.data, block)?;
                let read = Send::new(abi::TCMU_OP_READ, block, data.len() as u64).data(vec![0; data.len()]);
                same(&data, &good(device.one(read.segments(segments)))?.data, block)?;
            }
            Ok(())
        });
        self.check("a write changes nothing around it", || {
            let data = random.bytes(3 * block as usize);
            good(device.write(0, &data))?;
            good(device.write(block, &vec![0x5a; block as usize]))?;
            let mut expected = data;
            expected[block as usize..2 * block as usize].fill(0x5a);
            same(&expected, &good(device.read(0, expected.len()))?.data, 0)
        });
        self.check("a write with FUA is done", || {
            let data = random.bytes(block as usize);
            let write = Send::new(abi::TCMU_OP_WRITE, 0, block).data(data.clone()).flags(abi::TCMU_REQ_FUA);
            good(device.one(write))?;
            same(&data, &good(device.read(0, block as usize))?.data, 0)
        });
    }

    fn concurrency(&mut self, device: &BenchDevice, keeps: bool) {
        let block = u64::from(device.info().block_size());
        let blocks = (device.info().size() / block).min(2000);
        let mut random = Random(self.random.next() | 1);
        self.check("many requests at a time are all completed, each with its data", || {
            let data: Vec<Vec<u8>> = (0..blocks).map(|_| random.bytes(block as usize)).collect();
            let write = |n: u64| Send::new(abi::TCMU_OP_WRITE, n * block, block).data(data[n as usize].clone());
            for done in device.many((0..blocks).map(write).collect()) {
                good(done)?;
            }
            let read = |n: u64| Send::new(abi::TCMU_OP_READ, n * block, block).data(vec![1; block as usize]);
            for (n, done) in device.many((0..blocks).map(read).collect()).into_iter().enumerate() {
                let done = good(done)?;
                let expected = if keeps { data[n].clone() } else { vec![0; block as usize] };
                same(&expected, &done.data, n as u64 * block)?;
            }
            Ok(())
        });
    }

    fn operations(&mut self, device: &BenchDevice, keeps: bool) {
        let info = *device.info();
        let block = u64::from(info.block_size());
        let takes = |operation| info.operations().contains(operation);
        let range = || Send::new(0, 2 * block, 4 * block);
        let before = vec![0x77; 8 * block as usize];
        let fill = |device: &BenchDevice| good(device.write(0, &before)).map(|_| ());
        let after = |middle: u8| {
            let mut expected = before.clone();
            expected[2 * block as usize..6 * block as usize].fill(middle);
            expected
        };
        let read_back = |device: &BenchDevice| Ok::<_, String>(good(device.read(0, before.len()))?.data);
        let absent = || Verdict::NotApplicable("not announced".into());

        self.optional("FLUSH is done", takes(Operations::FLUSH), absent(), || {
            good(device.one(Send::new(abi::TCMU_OP_FLUSH, 0, 0))).map(|_| ())
        });
        self.optional("UNMAP leaves the rest alone, and zeros if it says so", takes(Operations::UNMAP), absent(), || {
            fill(device)?;
            good(device.one(Send { op: abi::TCMU_OP_UNMAP, ..range() }))?;
            let now = read_back(device)?;
            let expected = if info.flags().contains(DeviceFlags::UNMAP_ZEROES) { after(0) } else { merged(&before, &now, block) };
            if keeps { same(&expected, &now, 0) } else { Ok(()) }
        });
        self.optional(
            "WRITE_ZEROES gives zeros, with and without deallocation",
            takes(Operations::WRITE_ZEROES),
            absent(),
            || {
                for flags in [0, abi::TCMU_REQ_MAY_UNMAP] {
                    fill(device)?;
                    good(device.one(Send { op: abi::TCMU_OP_WRITE_ZEROES, flags, ..range() }))?;
                    if keeps {
                        same(&after(0), &read_back(device)?, 0)?;
                    }
                }
                Ok(())
            },
        );
        self.optional("WRITE_SAME repeats its block", takes(Operations::WRITE_SAME), absent(), || {
            fill(device)?;
            let same_block = Send { op: abi::TCMU_OP_WRITE_SAME, ..range() }.data(vec![0x33; block as usize]);
            good(device.one(same_block))?;
            if keeps { same(&after(0x33), &read_back(device)?, 0) } else { Ok(()) }
        });
        self.optional(
            "COMPARE_AND_WRITE writes over what it expects, and tells the first difference",
            takes(Operations::COMPARE_AND_WRITE) && keeps,
            absent(),
            || {
                fill(device)?;
                let length = 4 * block as usize;
                let send = |expected: Vec<u8>| {
                    Send { op: abi::TCMU_OP_COMPARE_AND_WRITE, ..range() }.data([expected, vec![0x44; length]].concat())
                };
                good(device.one(send(vec![0x77; length])))?;
                same(&after(0x44), &read_back(device)?, 0)?;
                let mut wrong = vec![0x44; length];
                wrong[length - 1] = 0;
                let done = finished(device.one(send(wrong)))?;
                let told = (done.status, done.result);
                expect(told == (abi::TCMU_STATUS_MISCOMPARE, length as u64 - 1), "a miscompare at the last byte", &told)?;
                same(&after(0x44), &read_back(device)?, 0)
            },
        );
        self.optional("COPY copies, overlapping ranges included", takes(Operations::COPY) && keeps, absent(), || {
            let data: Vec<u8> = (0..8 * block).map(|n| (n / block) as u8).collect();
            good(device.write(0, &data))?;
            good(device.one(Send { op: abi::TCMU_OP_COPY, source: 0, ..range() }))?;
            let mut expected = data;
            expected.copy_within(0..4 * block as usize, 2 * block as usize);
            same(&expected, &read_back(device)?, 0)
        });
        self.optional("EXTENTS describe the range in order, without gaps", takes(Operations::EXTENTS), absent(), || {
            let array = vec![0; 64 * size_of::<abi::tcmu_extent>()];
            let done = good(device.one(Send::new(abi::TCMU_OP_EXTENTS, 0, info.size()).data(array)))?;
            let word = |at: usize| u64::from_ne_bytes(done.data[at..at + 8].try_into().unwrap_or_default());
            expect((1..=64).contains(&done.result), "1 to 64 entries", &done.result)?;
            let mut next = 0;
            for n in 0..done.result as usize {
                let at = n * size_of::<abi::tcmu_extent>();
                let (offset, length) = (word(at), word(at + 8));
                expect(offset == next && length > 0, "the next extent begins where the last one ended", &(offset, next))?;
                next = offset + length;
            }
            expect(next <= info.size(), "they end within the range", &next)
        });
        self.optional("PREFETCH is done", takes(Operations::PREFETCH), absent(), || {
            good(device.one(Send { op: abi::TCMU_OP_PREFETCH, ..range() })).map(|_| ())
        });
        self.check("an operation that does not exist is refused or ignored, and does no harm", || {
            fill(device)?;
            finished(device.one(Send { op: 60, ..range() }.data(vec![0; block as usize])))?;
            if keeps { same(&before, &read_back(device)?, 0) } else { Ok(()) }
        });
    }

    fn optional(&mut self, name: &'static str, applies: bool, otherwise: Verdict, check: impl FnOnce() -> Outcome) {
        if applies { self.check(name, check) } else { self.add(name, otherwise) }
    }

    /// Devices that take whole CDBs.
    fn scsi(&mut self, device: &BenchDevice) {
        let mut random = Random(self.random.next() | 1);
        let send = |cdb: &[u8], length: usize| {
            finished(device.one(Send { cdb: cdb.to_vec(), ..Send::new(abi::TCMU_OP_SCSI, 0, 0) }.data(vec![0; length])))
        };
        self.check("INQUIRY and TEST UNIT READY are answered or left to the host", || {
            for cdb in [[0x12, 0, 0, 0, 36, 0], [0; 6]] {
                let done = send(&cdb, 36)?;
                expect(done.status >= 0, "a SCSI status, sense data or TCMU_STATUS_NOT_HANDLED", &done.status)?;
            }
            Ok(())
        });
        self.check("random commands are completed", || {
            for _ in 0..500 {
                let length = random.below(600) as usize;
                let cdb = random.bytes(16);
                let done = send(&cdb, length)?;
                expect(!done.spilled, "nothing outside the buffer is touched", &cdb)?;
                expect(done.result <= length as u64, "no more valid data than there is room for", &done.result)?;
            }
            Ok(())
        });
    }

    fn rest(&mut self, device: &BenchDevice) {
        let info = *device.info();
        self.check("a change that makes no sense does no harm", || {
            let _ = device.device().reconfigure(&Change::Unknown(999), info);
            if info.flags().contains(DeviceFlags::SCSI) {
                return Ok(());
            }
            good(device.read(0, info.block_size() as usize)).map(|_| ())
        });
        self.check("no request is completed twice", || expect(device.completed_twice() == 0, "0", &device.completed_twice()));
        self.check("every request is completed in time", || expect(!device.hung(), "all of them", &"some were not"));
    }

    fn reopen(&mut self) {
        let run = &*self;
        let outcome = (0..5).try_for_each(|_| run.open().map(drop)).map_err(|refusal| refusal.to_string());
        self.check("it opens again after it was closed", || outcome);
    }
}

fn finished(done: Option<Done>) -> Result<Done, String> {
    let done = done.ok_or("a request was not completed in time")?;
    if done.spilled {
        return Err("memory outside the request's buffer was changed".into());
    }
    Ok(done)
}

fn good(done: Option<Done>) -> Result<Done, String> {
    let done = finished(done)?;
    if done.status != 0 { Err(format!("a request ended with status {}", done.status)) } else { Ok(done) }
}

fn expect(right: bool, expected: &str, got: &impl std::fmt::Debug) -> Outcome {
    if right { Ok(()) } else { Err(format!("expected: {expected}; got: {got:?}")) }
}

fn same(expected: &[u8], got: &[u8], offset: u64) -> Outcome {
    match expected.iter().zip(got).position(|(a, b)| a != b) {
        None if expected.len() == got.len() => Ok(()),
        None => Err(format!("expected {} bytes, got {}", expected.len(), got.len())),
        Some(at) => {
            Err(format!("at byte {}: expected {}, got {}", offset + at as u64, shown(&expected[at..]), shown(&got[at..])))
        }
    }
}

fn shown(bytes: &[u8]) -> String {
    let first: Vec<String> = bytes.iter().take(8).map(|byte| format!("{byte:02x}")).collect();
    format!("{}{}", first.join(" "), if bytes.len() > 8 { " ..." } else { "" })
}

/// What was before, with the unmapped middle as it is now.
fn merged(before: &[u8], now: &[u8], block: u64) -> Vec<u8> {
    let middle = 2 * block as usize..6 * block as usize;
    let mut expected = before.to_vec();
    if now.len() == expected.len() {
        expected[middle.clone()].copy_from_slice(&now[middle]);
    }
    expected
}
