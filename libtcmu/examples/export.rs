//! Creates a backstore that a daemon serves, and exports it over iSCSI: `export DEV_CONFIG BYTES IQN ADDRESS`. Prints the backstore's place
//! in configfs; when standard input ends, everything is taken away again.
use std::{env, io::Read};

use tcmu::{
    Roots,
    configfs::{Admit, Backstore, BackstoreSpec, Iscsi, IscsiSpec},
};

fn main() -> Result<(), Box<dyn std::error::Error>> {
    let arguments: Vec<String> = env::args().skip(1).collect();
    let [dev_config, size, iqn, address] = &arguments[..] else {
        return Err("usage: export DEV_CONFIG BYTES IQN ADDRESS".into());
    };
    let roots = Roots::default();
    let backstore = Backstore::create(&roots, &BackstoreSpec::new("exported", dev_config, size.parse()?))?;
    let target = IscsiSpec { portals: vec![address.parse()?], admit: Admit::All, ..IscsiSpec::new(iqn) };
    let iscsi = Iscsi::attach(&roots, &backstore, &target)?;
    println!("{}", backstore.path().display());
    std::io::stdin().read_to_end(&mut Vec::new())?;
    iscsi.remove()?;
    backstore.remove()?;
    Ok(())
}
