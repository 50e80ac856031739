use std::{collections::BTreeMap, os::unix::net::UnixStream};

use super::*;

fn facts(subtype: &str) -> HandlerFacts {
    HandlerFacts {
        subtype: subtype.into(),
        name: "n".into(),
        version: "1".into(),
        config_desc: format!("{subtype}/<path>"),
        abi: 1,
        io_flusher: true,
    }
}

/// Both ends of a connection without a bus, and a supervisor that knows one right config string.
fn connected() -> (Connection, Connection) {
    let (happenings, happened) = std::sync::mpsc::channel();
    thread::spawn(move || {
        while let Ok(Happening::Bus(question)) = happened.recv() {
            match &question {
                Question::CheckConfig { config, .. } if config == "/right" => question.answer_check(true, "success".into()),
                Question::CheckConfig { .. }
                | Question::SetLogLevel { .. }
                | Question::RestartHandler { .. }
                | Question::StartTrace { .. }
                | Question::StopTrace { .. }
                | Question::Reload { .. } => {
                    question.answer_check(false, "the path is wrong".into());
                }
                Question::Refusal { device, .. } => {
                    let reason = format!("{device} is no good");
                    question.answer_text(reason);
                }
                Question::ConfigProblem { .. } => question.answer_text("x:1: wrong".into()),
                Question::Statistics { .. } => question.answer_statistics(crate::statistics::tests::sample()),
                Question::Handlers { .. } | Question::Devices { .. } => {
                    let device =
                        |name: &str| vec![("size".into(), Field::Number(5)), ("device".into(), Field::Text(name.into()))];
                    question.answer_rows(["user_0/d", "user_0/e", "user_1/e"].map(device).to_vec());
                }
                Question::ChangeMedium { .. } => {
                    let Question::ChangeMedium { medium, reply } = question else { unreachable!() };
                    let _ = reply.send(if medium.config == "y" { (0, "done".into()) } else { (-5, format!("{medium:?}")) });
                }
                Question::Register { .. } | Question::Unregister { .. } | Question::BusGone => unreachable!("there is no bus"),
            }
        }
    });
    let (ours, theirs) = UnixStream::pair().unwrap();
    let guid = zbus::Guid::generate();
    let server = thread::spawn(move || {
        zbus::block_on(async {
            let supervisor = Supervisor(happenings);
            let builder = Builder::async_io_unix_stream(ours).server(guid).unwrap().p2p();
            let level = Arc::new(Mutex::new("info".to_owned()));
            serve(builder, &supervisor, &[facts("file"), facts("alloc")], &level).unwrap().build().await.unwrap()
        })
    });
    let client = zbus::block_on(Builder::async_io_unix_stream(theirs).p2p().build()).unwrap();
    (server.join().unwrap(), client)
}

fn call<R>(
    client: &Connection,
    path: &str,
    interface: &str,
    method: &str,
    body: &(impl serde::Serialize + zbus::zvariant::DynamicType),
) -> zbus::Result<R>
where
    R: for<'d> zbus::zvariant::DynamicDeserialize<'d>,
{
    let reply = zbus::block_on(client.call_method(None::<&str>, path, Some(interface), method, body))?;
    reply.body().deserialize()
}

#[test]
fn only_handlers_are_managed_objects() {
    let (_server, client) = connected();
    let objects: service::Objects =
        call(&client, "/org/kernel/TCMUService1", "org.freedesktop.DBus.ObjectManager", "GetManagedObjects", &()).unwrap();
    let mut paths: Vec<_> = objects.keys().map(ToString::to_string).collect();
    paths.sort();
    assert_eq!(paths, ["/org/kernel/TCMUService1/alloc", "/org/kernel/TCMUService1/file"]);
    let file = objects.iter().find(|(path, _)| path.as_str().ends_with("file")).unwrap().1;
    assert_eq!(file["org.kernel.TCMUService1"]["ConfigDesc"], zbus::zvariant::Value::from("file/<path>").try_to_owned().unwrap());
}

#[test]
fn config_strings_are_checked_by_the_handler_they_name() {
    let (_server, client) = connected();
    let check = |config: &str| -> (bool, String) {
        call(&client, "/org/kernel/TCMUService1/file", "org.kernel.TCMUService1", "CheckConfig", &(config,)).unwrap()
    };
    assert_eq!(check("file//right"), (true, "success".into()));
    assert_eq!(check("file//wrong"), (false, "the path is wrong".into()));
    assert!(!check("alloc/x").0, "another handler's string");
    assert!(!check("").0);
    let long = format!("file/{}", "x".repeat(70_000));
    assert_eq!(check(&long), (false, "a config string has at most 4096 bytes, this one has 70000".into()));
}

#[test]
fn statistics_arrive_as_they_were_sent() {
    let (_server, client) = connected();
    let of = |method: &str| -> Vec<std::collections::HashMap<String, zbus::zvariant::OwnedValue>> {
        call(&client, control::PATH, statistics::INTERFACE, method, &()).unwrap()
    };
    let sample = crate::statistics::tests::sample();
    let figures = |method| of(method).into_iter().map(statistics::figures).next().unwrap();
    assert_eq!(crate::statistics::DeviceStatistics::of(&figures("Devices")), sample.devices[0]);
    assert_eq!(crate::statistics::HandlerStatistics::of(&figures("Handlers")), sample.handlers[0]);
}

#[test]
fn the_control_interface_tells_rows() {
    let (_server, client) = connected();
    zbus::block_on(async {
        let control = control::ControlProxy::new(&client).await.unwrap();
        let rows = control.list_devices().await.unwrap();
        assert_eq!(rows[0]["size"], zbus::zvariant::OwnedValue::from(5u64));
        assert_eq!(rows[0], control.get_device("d").await.unwrap());
        assert_eq!(rows[2], control.get_device("user_1/e").await.unwrap());
        let error = control.get_device("e").await.unwrap_err().to_string();
        assert!(error.ends_with("\"e\" are several: user_<number>/e is needed"), "{error}");
        assert!(control.get_device("user_2/e").await.unwrap_err().to_string().ends_with("there is no device \"user_2/e\""));
        assert_eq!(control.log_level().await.unwrap(), "info");
        assert_eq!(control.config_problem().await.unwrap(), "x:1: wrong");
        assert_eq!(control.get_refusal("user_0/d").await.unwrap(), "user_0/d is no good");
        assert!(control.set_log_level("x").await.is_err());
    });
}

#[test]
fn a_medium_is_changed_on_both_interfaces() {
    let (_server, client) = connected();
    zbus::block_on(async {
        let control = control::ControlProxy::new(&client).await.unwrap();
        control.change_medium("d", 512, "y").await.unwrap();
        assert!(control.change_medium("d", 512, "z").await.is_err());
        let alloc = tcmu_dbus::service::HandlerProxy::new(&client, "/org/kernel/TCMUService1/alloc");
        let alloc = alloc.await.unwrap();
        assert_eq!(alloc.config_desc().await.unwrap(), "alloc/<path>");
        assert_eq!(alloc.change_medium("d", 512, "alloc/y").await.unwrap(), (0, "done".into()));
        let (code, why) = alloc.change_medium("d", 512, "file/y").await.unwrap();
        assert_eq!((code, why.as_str()), (-libc::EINVAL, "\"file/y\" does not begin with alloc/"));
        let (code, asked) = alloc.change_medium("d", 512, "alloc/").await.unwrap();
        assert!(code == -5 && asked.contains("subtype: Some(\"alloc\"), device: \"d\", size: 512, config: \"\""), "{asked}");
    });
}

#[test]
fn changes_are_told_by_signals() {
    use futures_lite::StreamExt;
    let (server, client) = connected();
    zbus::block_on(async {
        let control = control::ControlProxy::new(&client).await.unwrap();
        let (mut added, mut removed) =
            (control.receive_device_added().await.unwrap(), control.receive_device_removed().await.unwrap());
        let announcer = Announcer::default();
        let row = vec![("state".into(), Field::Text("serving".into()))];
        announcer.add(vec![
            (Thing::Device, "user_0/a".into(), Change::Added(row)),
            (Thing::Device, "user_0/b".into(), Change::Removed),
        ]);
        control::announce(&server, announcer.wait()).await.unwrap();
        let signal = added.next().await.unwrap();
        let args = signal.args().unwrap();
        assert_eq!(args.device, "user_0/a");
        assert_eq!(args.properties["state"], zbus::zvariant::Value::from("serving").try_to_owned().unwrap());
        assert_eq!(removed.next().await.unwrap().args().unwrap().device, "user_0/b");
    });
}

#[test]
fn a_program_cannot_register_for_what_is_no_name() {
    let (_server, client) = connected();
    zbus::block_on(async {
        let manager = tcmu_dbus::service::HandlerManagerProxy::new(&client).await.unwrap();
        let (yes, why) = manager.register_handler("a-b", "").await.unwrap();
        assert!(!yes && why.contains("letters, digits and _ are needed"), "{why}");
    });
}

/// The checked-in descriptions, for programs in other languages: where each interface is served.
const DESCRIBED: [(&str, &str); 4] = [
    ("org.kernel.TCMUService1", "/org/kernel/TCMUService1/file"),
    ("org.kernel.TCMUService1.HandlerManager1", "/org/kernel/TCMUService1/HandlerManager1"),
    ("org.tcmu_runnerd.Control1", "/org/tcmu_runnerd/Control1"),
    ("org.tcmu_runnerd.Statistics1", "/org/tcmu_runnerd/Control1"),
];

/// What clients depend on: each member with its types.
fn members(xml: &str, interface: &str) -> BTreeMap<String, String> {
    let node = zbus_xml::Node::from_reader(xml.as_bytes()).unwrap();
    let interface = node.interfaces().iter().find(|other| other.name().as_str() == interface).expect("the interface is there");
    // Names of arguments are nobody's business, their types and directions are.
    let direction = |arg: &zbus_xml::Arg| match arg.direction() {
        Some(zbus_xml::ArgDirection::In) => "in ",
        Some(zbus_xml::ArgDirection::Out) => "out ",
        None => "",
    };
    let list = |args: &[zbus_xml::Arg]| {
        let args: Vec<String> = args.iter().map(|arg| format!("{}{}", direction(arg), arg.ty().inner())).collect();
        args.join(", ")
    };
    let methods = interface.methods().iter().map(|method| (format!("method {}", method.name()), list(method.args())));
    let signals = interface.signals().iter().map(|signal| (format!("signal {}", signal.name()), list(signal.args())));
    let properties = interface
        .properties()
        .iter()
        .map(|property| (format!("property {}", property.name()), format!("{} {:?}", property.ty().inner(), property.access())));
    methods.chain(signals).chain(properties).collect()
}

#[test]
fn what_is_served_is_what_clients_were_promised() {
    let (_server, client) = connected();
    for (interface, path) in DESCRIBED {
        let served: String = call(&client, path, "org.freedesktop.DBus.Introspectable", "Introspect", &()).unwrap();
        let file = format!("{}/../dist/dbus/interfaces/{interface}.xml", env!("CARGO_MANIFEST_DIR"));
        let promised = std::fs::read_to_string(&file).unwrap_or_default();
        if !promised.is_empty() {
            let now = members(&served, interface);
            for (member, types) in members(&promised, interface) {
                assert_eq!(now.get(&member), Some(&types), "{interface}: clients use the {member}; another interface is needed");
            }
        }
        let begin = served.find(&format!("<interface name=\"{interface}\">")).unwrap();
        let end = begin + served[begin..].find("</interface>").unwrap() + "</interface>".len();
        let doctype = served.lines().take_while(|line| !line.starts_with("<node")).collect::<Vec<_>>().join("\n");
        let described = format!("{}\n<node>\n  {}\n</node>\n", doctype.trim(), &served[begin..end]);
        if std::env::var_os("UPDATE_DBUS").is_some() {
            std::fs::write(&file, &described).unwrap();
        }
        assert!(
            std::fs::read_to_string(&file).unwrap_or_default() == described,
            "{file} is stale; refresh it with: UPDATE_DBUS=1 cargo test -p tcmu-runnerd promised"
        );
    }
}
