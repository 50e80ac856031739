//! The `null` handler: reads give zeros, writes go nowhere. The measure of everything else's overhead.
use tcmu_handler_api::{plugin::options::Options, prelude::*};

/// A device without data.
#[derive(Debug)]
pub struct Null {
    /// Reads clear the buffer; otherwise it holds whatever was there.
    fill: bool,
}

fn parse(config: &str) -> Result<Null, Refusal> {
    let mut options = Options::parse(config)?;
    let fill = options.take_switch("fill", true)?;
    options.finish()?;
    Ok(Null { fill })
}

impl Handler for Null {
    const INFO: HandlerInfo = HandlerInfo {
        subtype: c"null",
        name: c"Nothing",
        version: c"0.1.0",
        config_desc:
            c"null/<any name>[;fill=on|off]: reads give zeros, writes go nowhere. fill=off leaves the buffers of reads as they \
are, which shows one initiator's data to another; for measurements only.",
    };

    fn check_config(config: &str) -> Result<(), Refusal> {
        parse(config).map(|_| ())
    }

    fn open(open: &Open<'_>, info: &mut DeviceInfo) -> Result<Null, Refusal> {
        info.supports(Operations::FLUSH | Operations::UNMAP | Operations::WRITE_ZEROES)
            .set_flags(DeviceFlags::UNMAP_ZEROES | DeviceFlags::THIN | DeviceFlags::FUA, true);
        parse(open.config())
    }
}

impl Device for Null {
    const THREADS: Threads = Threads::Inline;

    fn submit(&self, batch: Batch<'_>) {
        for request in batch {
            let outcome = match request.operation() {
                Operation::Read if self.fill => {
                    request.buffer().fill(0);
                    Ok(())
                }
                Operation::Read | Operation::Write | Operation::Flush | Operation::Unmap | Operation::WriteZeroes => Ok(()),
                _ => Err(Error::UNSUPPORTED),
            };
            request.complete(outcome);
        }
    }

    fn reconfigure(&self, change: Change<'_>, _info: &mut DeviceInfo) -> Result<(), Refusal> {
        match change {
            Change::Size(_) | Change::WriteCache(_) => Ok(()),
            _ => Err(Refusal::unsupported("only size and write cache can be changed")),
        }
    }
}

tcmu_handler_api::export_handler!(Null);
