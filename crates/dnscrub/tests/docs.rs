//! The documentation is true: its configurations load, its commands run and print what it shows, its
//! servers start as they are written and are as safe as it says, and its links lead somewhere.
//!
//! Code blocks are marked by their fence:
//! - `yaml`: a whole configuration; `yaml fragment`: a part of one; `yaml wrong`: one that is refused;
//!   `yaml … file=NAME`: it is stored under this name for the other blocks of its page;
//! - `console`: `$ ` in front of commands, which are run, and what they print. The configuration is
//!   the page's last whole one above the block, or `deploy/dnscrub.yaml`, or the file named in the
//!   fence. `...` stands for any text to the end of a line or, alone on a line, for any lines;
//! - `sh`: commands that need root or packages; only commands and options of dnscrub are looked up;
//! - `python`: an example for receivers, run by the tests of what it is about;
//! - `nsd`, `named`: parts of these servers' configurations;
//! - `text`: anything else.

#![allow(
    clippy::unwrap_used,
    clippy::expect_used,
    reason = "a failure here fails the test"
)]

use std::collections::BTreeSet;
use std::fmt::Write as _;
use std::fs;
use std::net::{Ipv4Addr, UdpSocket};
use std::path::{Path, PathBuf};
use std::process::{Child, Command, Output, Stdio};
use std::time::{Duration, Instant};

use dnscrub::config::Disk;
use dnscrub::config::runtime::{self, Configuration, Surroundings};
use dnscrub::metrics;
use dnscrub::outcome::Reason;
use dnscrub_testkit::message;
use dnscrub_testkit::servers::free_port;
use dnscrub_wire::Rcode;
use etherparse::PacketBuilder;
use serde_yaml::{Mapping, Value};
use tempfile::TempDir;

/// How long a program may take to be ready.
const PATIENCE: Duration = Duration::from_secs(20);
const CONFIG: &str = "/etc/dnscrub/dnscrub.yaml";
/// The secret of the key in deploy/.
const KEY: &str = "hmac-sha256:transfer:bm90IGEgc2VjcmV0LCByZXBsYWNlIGl0ISEhISEhISE=";

fn root() -> PathBuf {
    Path::new(env!("CARGO_MANIFEST_DIR"))
        .join("../..")
        .canonicalize()
        .unwrap()
}

fn dnscrub() -> Command {
    let mut command = Command::new(env!("CARGO_BIN_EXE_dnscrub"));
    command.env("NO_COLOR", "1").stdin(Stdio::null());
    command
}

struct Page {
    path: PathBuf,
    text: String,
}

struct Block {
    /// "docs/rules.md:17".
    place: String,
    fence: Vec<String>,
    text: String,
}

impl Block {
    fn is(&self, fence: &str) -> bool {
        self.fence
            .iter()
            .filter(|word| !word.starts_with("file="))
            .map(String::as_str)
            .eq(fence.split(' '))
    }

    fn file(&self) -> Option<&str> {
        self.fence
            .iter()
            .find_map(|word| word.strip_prefix("file="))
    }
}

impl Page {
    fn name(&self) -> String {
        self.path
            .strip_prefix(root())
            .unwrap()
            .display()
            .to_string()
    }

    fn blocks(&self) -> Vec<Block> {
        let mut blocks: Vec<Block> = Vec::new();
        let mut inside = false;
        // a block in a list is indented as its fence is
        let mut indent = 0;
        for (number, line) in (1..).zip(self.text.lines()) {
            match line.trim_start().strip_prefix("```") {
                Some(_) if inside => inside = false,
                Some(fence) => {
                    inside = true;
                    indent = line.len() - line.trim_start().len();
                    let fence = fence.split_whitespace().map(str::to_owned).collect();
                    blocks.push(Block {
                        place: format!("{}:{number}", self.name()),
                        fence,
                        text: String::new(),
                    });
                }
                None if inside => {
                    let block = blocks.last_mut().unwrap();
                    let margin = line.len() - line.trim_start().len();
                    block.text.push_str(&line[margin.min(indent)..]);
                    block.text.push('\n');
                }
                None => {}
            }
        }
        assert!(!inside, "{}: a code block does not end", self.name());
        blocks
    }

    /// The text without its code blocks.
    fn prose(&self) -> String {
        let mut inside = false;
        let is_prose = |line: &&str| {
            let fence = line.trim_start().starts_with("```");
            inside ^= fence;
            !inside && !fence
        };
        self.text
            .lines()
            .filter(is_prose)
            .collect::<Vec<_>>()
            .join("\n")
    }

    /// What stands between backquotes in the prose.
    fn code_spans(&self) -> Vec<String> {
        self.prose()
            .split('`')
            .skip(1)
            .step_by(2)
            .map(|span| span.split_whitespace().collect::<Vec<_>>().join(" "))
            .collect()
    }
}

/// The pages that people write; those in docs/reference are generated and have tests of their own.
fn pages() -> Vec<Page> {
    let root = root();
    let mut paths: Vec<PathBuf> = ["README.md", "ARCHITECTURE.md", "CHANGELOG.md"]
        .map(|name| root.join(name))
        .into();
    for folder in ["docs", "docs/playbooks"] {
        let files = files_in(&root.join(folder)).into_iter();
        paths.extend(files.filter(|path| path.extension().is_some_and(|it| it == "md")));
    }
    paths
        .into_iter()
        .map(|path| Page {
            text: fs::read_to_string(&path).unwrap(),
            path,
        })
        .collect()
}

fn files_in(folder: &Path) -> Vec<PathBuf> {
    let mut paths: Vec<PathBuf> = fs::read_dir(folder)
        .unwrap()
        .map(|entry| entry.unwrap().path())
        .collect();
    paths.sort();
    paths
}

fn deployed_configurations() -> Vec<PathBuf> {
    let deploy = root().join("deploy");
    let folders = files_in(&deploy).into_iter().filter(|path| path.is_dir());
    let all: Vec<PathBuf> = folders
        .flat_map(|folder| files_in(&folder))
        .chain(files_in(&deploy))
        .collect();
    all.into_iter()
        .filter(|path| path.extension().is_some_and(|it| it == "yaml"))
        .collect()
}

/// A folder with the files that configurations on the pages name.
fn folder_for(page: Option<&Page>) -> TempDir {
    let folder = tempfile::Builder::new()
        .prefix("dnscrub-docs-")
        .tempdir()
        .unwrap();
    let put = |name: &str, text: &str| {
        let path = folder.path().join(name);
        fs::create_dir_all(path.parent().unwrap()).unwrap();
        fs::write(path, text).unwrap();
    };
    put(
        "lists/drop.txt",
        "198.51.100.7 open resolver, ticket 4711\n203.0.113.0/24\n",
    );
    put("lists/feed.txt", "2001:db8:bad::/48 ; SBL123456\n");
    put("lists/gone.txt", "gone.example.com\n");
    fs::write(folder.path().join("flood.pcap"), flood()).unwrap();
    put("cookie-secrets", "445536bcd2513298075a5d379663c962\n");
    put(
        "transfer.key",
        "bm90IGEgc2VjcmV0LCByZXBsYWNlIGl0ISEhISEhISE=\n",
    );
    put(
        "zones/example.net.zone",
        "@ SOA ns h 1 3600 600 86400 300\n",
    );
    put("token", "0123456789abcdef0123456789abcdef\n");
    for block in page.map(Page::blocks).unwrap_or_default() {
        if let Some(name) = block.file() {
            put(name, &block.text);
        }
    }
    folder
}

/// A capture of ten seconds: a resolver that asks and is answered, and random names from anywhere.
fn flood() -> Vec<u8> {
    let mut capture = Vec::new();
    for number in [0xa1b2_c3d4_u32, 0x0004_0002, 0, 0, 262_144, 101] {
        capture.extend(number.to_le_bytes());
    }
    let server = [192, 0, 2, 53];
    let mut add = |milliseconds: u32, from: ([u8; 4], u16), to: ([u8; 4], u16), data: &[u8]| {
        let mut packet = Vec::new();
        let builder = PacketBuilder::ipv4(from.0, to.0, 57).udp(from.1, to.1);
        builder.write(&mut packet, data).unwrap();
        let length = u32::try_from(packet.len()).unwrap();
        let second = 1_764_000_000 + milliseconds / 1000;
        for number in [second, milliseconds % 1000 * 1000, length, length] {
            capture.extend(number.to_le_bytes());
        }
        capture.extend(packet);
    };
    for number in 0..1_000_u16 {
        let at = u32::from(number) * 10;
        if number % 10 == 0 {
            let resolver = ([198, 51, 100, 53], 4711);
            let query = message::a_query("www.example.com", number);
            add(at, resolver, (server, 53), &query);
            let answer = message::answer(&query, Rcode::NOERROR, 1);
            add(at + 1, (server, 53), resolver, &answer);
        }
        if (200..800).contains(&number) {
            let [high, low] = number.to_be_bytes();
            let name = format!(
                "q{:08x}x7k2m.example.com",
                u32::from(number).wrapping_mul(0x9e37_79b1)
            );
            let query = message::a_query(&name, number);
            add(at + 2, ([203, 0, high, low], 5353), (server, 53), &query);
        }
    }
    capture
}

fn load(folder: &Path, text: &str) -> Result<Configuration, String> {
    let path = folder.join("dnscrub.yaml");
    fs::write(&path, text).unwrap();
    runtime::load(&path, &Disk, Surroundings::at_start()).map_err(|problems| problems.to_string())
}

/// Completes a part of a configuration.
fn whole(fragment: &str) -> String {
    let mut text = fragment.to_owned();
    let has = |section: &str| fragment.lines().any(|line| line.starts_with(section));
    if !has("listen:") {
        text.push_str("listen: [ { address: \"192.0.2.1:53\" } ]\n");
    }
    if !has("pools:") {
        text.push_str("pools: { default: { upstreams: [ { address: \"192.0.2.10:53\" } ] } }\n");
    }
    text
}

#[test]
fn every_code_block_is_of_a_known_kind() {
    let known = [
        "yaml",
        "yaml fragment",
        "yaml wrong",
        "console",
        "sh",
        "nsd",
        "named",
        "python",
        "text",
    ];
    for block in pages().iter().flat_map(Page::blocks) {
        let named_console = block.fence.len() == 2
            && block.fence[0] == "console"
            && root().join(&block.fence[1]).exists();
        assert!(
            named_console || known.iter().any(|fence| block.is(fence)),
            "{}: a fence of {:?}",
            block.place,
            block.fence
        );
    }
}

#[test]
fn every_configuration_shown_loads() {
    let mut loaded = 0;
    for page in pages() {
        let folder = folder_for(Some(&page));
        for block in page.blocks() {
            let text = match () {
                () if block.is("yaml") => block.text.clone(),
                () if block.is("yaml fragment") => whole(&block.text),
                () => continue,
            };
            load(folder.path(), &text)
                .unwrap_or_else(|problems| panic!("{}:\n{problems}", block.place));
            loaded += 1;
        }
    }
    assert!(loaded > 10, "{loaded}");
    for path in deployed_configurations() {
        let configuration = runtime::load(&path, &Disk, Surroundings::at_start());
        configuration.unwrap_or_else(|problems| panic!("{}:\n{problems}", path.display()));
    }
}

#[test]
fn what_is_shown_as_wrong_is_refused() {
    for page in pages() {
        let folder = folder_for(Some(&page));
        for block in page.blocks().iter().filter(|block| block.is("yaml wrong")) {
            let problems = load(folder.path(), &block.text).err();
            assert!(
                problems.is_some_and(|text| text.contains("-->")),
                "{}",
                block.place
            );
        }
    }
}

/// Words of a command line; quotes keep blanks together.
fn words(line: &str) -> Vec<String> {
    let mut words = vec![String::new()];
    let mut quote = None;
    for character in line.chars() {
        let word = words.last_mut().unwrap();
        match (character, quote) {
            (_, Some(open)) if character == open => quote = None,
            ('"' | '\'', None) => quote = Some(character),
            (' ', None) if word.is_empty() => {}
            (' ', None) => words.push(String::new()),
            _ => word.push(character),
        }
    }
    words.retain(|word| !word.is_empty());
    words
}

/// The dnscrub commands on a line, without what leads to them or follows them.
fn commands_on(line: &str) -> Vec<Vec<String>> {
    let ends = |word: &String| {
        ["&&", ";", "|", ">", "-"].contains(&word.as_str()) || word.starts_with('2')
    };
    let parts: Vec<Vec<String>> = words(line).split(ends).map(<[String]>::to_vec).collect();
    let own = |part: &Vec<String>| {
        let at = part
            .iter()
            .take(2)
            .position(|word| word == "dnscrub" || word.ends_with("bin/dnscrub"))?;
        (at == 0 || part[0] == "sudo" || part[0] == "$").then(|| part[at + 1..].to_vec())
    };
    parts.iter().filter_map(own).collect()
}

/// That a command and its options exist, whatever the values.
fn assert_exists(command: &[String], place: &str) {
    let mut names: Vec<&str> = Vec::new();
    let mut help = String::new();
    for word in command
        .iter()
        .map(String::as_str)
        .take(2)
        .take_while(|word| word.chars().all(|it| it.is_ascii_lowercase()))
    {
        let asked = dnscrub()
            .args(&names)
            .args([word, "--help"])
            .output()
            .unwrap();
        // the second word may be a value instead of a command
        if !asked.status.success() {
            assert!(!names.is_empty(), "{place}: there is no command {word}");
            break;
        }
        names.push(word);
        help = String::from_utf8_lossy(&asked.stdout).into_owned();
    }
    for option in command.iter().filter(|word| word.starts_with("--")) {
        let option = option.split('=').next().unwrap();
        assert!(
            help.contains(option),
            "{place}: dnscrub {} has no {option}",
            names.join(" ")
        );
    }
}

#[test]
fn every_command_named_exists() {
    let mut checked = BTreeSet::new();
    let mut check = |line: &str, place: &str| {
        for command in commands_on(line) {
            if checked.insert(command.clone()) {
                assert_exists(&command, place);
            }
        }
    };
    for page in pages() {
        for block in page
            .blocks()
            .iter()
            .filter(|block| block.is("sh") || block.fence[0] == "console")
        {
            block
                .text
                .lines()
                .for_each(|line| check(line, &block.place));
        }
        page.code_spans()
            .iter()
            .filter(|span| span.starts_with("dnscrub "))
            .for_each(|span| check(span, &page.name()));
    }
    let unit = fs::read_to_string(root().join("deploy/systemd/dnscrub.service")).unwrap();
    for line in unit.lines().filter(|line| line.starts_with("Exec")) {
        check(line.split_once('=').unwrap().1, "the systemd unit");
    }
    assert!(checked.len() > 20, "{checked:?}");
    // The README's two commands.
    assert!(
        dnscrub()
            .args(["demo", "--help"])
            .output()
            .unwrap()
            .status
            .success()
    );
    assert!(root().join("tests/run").exists());
}

#[test]
fn every_metric_and_reason_named_exists() {
    let metrics: BTreeSet<&str> = metrics::ALL.iter().map(|metric| metric.name).collect();
    let reasons: BTreeSet<&str> = Reason::all().map(Reason::label).collect();
    for page in pages() {
        for span in page.code_spans() {
            for word in span.split(|it: char| !(it.is_ascii_alphanumeric() || it == '_')) {
                if word.starts_with("dnscrub_") {
                    assert!(
                        metrics.contains(word),
                        "{}: there is no metric {word}",
                        page.name()
                    );
                }
            }
        }
        let Some((_, table)) = page.text.split_once("| reason | what to do |") else {
            continue;
        };
        for row in table
            .lines()
            .skip(2)
            .take_while(|line| line.starts_with('|'))
        {
            let cell = row.split('|').nth(1).unwrap();
            for reason in cell.split('`').skip(1).step_by(2) {
                assert!(
                    reasons.contains(reason),
                    "{}: there is no reason {reason}",
                    page.name()
                );
            }
        }
    }
}

/// The anchor of a heading, as web views of Markdown make it.
fn anchor(heading: &str) -> String {
    let kept = heading.trim().to_lowercase().replace(' ', "-");
    kept.chars()
        .filter(|it| it.is_alphanumeric() || ['-', '_'].contains(it))
        .collect()
}

#[test]
fn every_link_leads_somewhere() {
    for page in pages() {
        for target in page
            .prose()
            .split("](")
            .skip(1)
            .map(|rest| rest.split(')').next().unwrap())
        {
            if target.starts_with("http") {
                continue;
            }
            let (path, fragment) = target.split_once('#').unwrap_or((target, ""));
            let path = if path.is_empty() {
                page.path.clone()
            } else {
                page.path.parent().unwrap().join(path)
            };
            assert!(path.exists(), "{}: {target} is not there", page.name());
            if !fragment.is_empty() {
                let text = fs::read_to_string(&path).unwrap();
                let mut headings = text.lines().filter(|line| line.starts_with('#'));
                let found = headings.any(|line| anchor(line.trim_start_matches('#')) == fragment);
                assert!(found, "{}: {target} has no such heading", page.name());
            }
        }
    }
}

#[test]
fn the_files_and_constants_of_the_architecture_page_exist() {
    let page = pages()
        .into_iter()
        .find(|page| page.name() == "ARCHITECTURE.md")
        .unwrap();
    let mut sources = Vec::new();
    let mut folders = vec![root().join("crates")];
    while let Some(folder) = folders.pop() {
        for path in files_in(&folder) {
            if path.is_dir() {
                folders.push(path);
            } else if path.extension().is_some_and(|it| it == "rs") {
                sources.push((
                    path.display().to_string(),
                    fs::read_to_string(&path).unwrap(),
                ));
            }
        }
    }
    for span in page.code_spans() {
        if span.ends_with(".rs") {
            assert!(
                sources
                    .iter()
                    .any(|(path, _)| path.ends_with(&format!("/{span}"))),
                "there is no {span}"
            );
        } else if span.contains("::") && !span.contains([' ', '[']) {
            let last = span.rsplit("::").next().unwrap();
            assert!(
                sources.iter().any(|(_, text)| text.contains(last)),
                "there is no {span}"
            );
        }
    }
    // functions in the picture of one packet's way
    let way = page
        .blocks()
        .into_iter()
        .find(|block| block.text.contains("query_round"))
        .unwrap();
    for name in way
        .text
        .lines()
        .filter_map(|line| line.split_whitespace().next())
        .filter(|word| word.contains("::"))
    {
        let function = name.rsplit("::").next().unwrap();
        assert!(
            sources
                .iter()
                .any(|(_, text)| text.contains(&format!("fn {function}"))),
            "there is no {name}"
        );
    }
}

/// A program that ends with its owner.
struct Process {
    child: Child,
    folder: TempDir,
}

impl Process {
    fn start(mut command: Command, folder: TempDir) -> Self {
        let log = fs::File::create(folder.path().join("log")).unwrap();
        command
            .stdin(Stdio::null())
            .stdout(log.try_clone().unwrap())
            .stderr(log);
        let child = command
            .spawn()
            .unwrap_or_else(|failure| panic!("{command:?}: {failure}"));
        Self { child, folder }
    }

    fn log(&self) -> String {
        fs::read_to_string(self.folder.path().join("log")).unwrap_or_default()
    }

    /// Waits until `ready` says so.
    fn wait(mut self, mut ready: impl FnMut(&Self) -> bool) -> Self {
        let end = Instant::now() + PATIENCE;
        loop {
            let ended = self.child.try_wait().unwrap();
            assert!(ended.is_none(), "it ended with {ended:?}:\n{}", self.log());
            if ready(&self) {
                return self;
            }
            assert!(Instant::now() < end, "it is not ready:\n{}", self.log());
            std::thread::sleep(Duration::from_millis(20));
        }
    }
}

impl Drop for Process {
    fn drop(&mut self) {
        if !matches!(self.child.try_wait(), Ok(None)) {
            return;
        }
        // SIGTERM first: NSD has children of its own
        let _ = Command::new("kill")
            .arg(self.child.id().to_string())
            .status();
        let end = Instant::now() + Duration::from_secs(5);
        while Instant::now() < end && matches!(self.child.try_wait(), Ok(None)) {
            std::thread::sleep(Duration::from_millis(10));
        }
        let _ = self.child.kill();
        let _ = self.child.wait();
    }
}

fn kdig(port: u16, arguments: &[&str]) -> Output {
    let mut command = Command::new("kdig");
    command
        .args(["-p", &port.to_string(), "+timeout=5", "+retry=0"])
        .args(arguments);
    command
        .output()
        .expect("kdig (Debian package knot-dnsutils) runs")
}

fn text(output: &Output) -> String {
    String::from_utf8_lossy(&output.stdout).into_owned()
}

fn asked(port: u16, arguments: &[&str]) -> String {
    text(&kdig(port, arguments))
}

fn serves(port: u16) -> bool {
    asked(port, &["@127.0.0.1", "example.com", "SOA", "+short"]).contains("hostmaster")
}

/// A server of deploy/ as it is written there, but on a free port and in a folder of its own.
struct Backend {
    process: Process,
    port: u16,
}

impl Backend {
    fn nsd() -> Self {
        let (folder, port) = (tempfile::tempdir().unwrap(), free_port(false));
        let here = folder.path().display();
        let deployed = root().join("deploy/nsd");
        fs::copy(
            deployed.join("example.com.zone"),
            folder.path().join("example.com.zone"),
        )
        .unwrap();
        let conf = fs::read_to_string(deployed.join("nsd.conf")).unwrap();
        let mut conf = conf
            .replace("@5300", &format!("@{port}"))
            .replace("/etc/nsd", &here.to_string());
        let _ = write!(
            conf,
            "server:\nusername: \"\"\nchroot: \"\"\ndatabase: \"\"\npidfile: \"{here}/pid\"\nxfrdfile: \"{here}/xfrd\"\n\
             xfrdir: \"{here}\"\nzonelistfile: \"{here}/zones\"\nremote-control:\ncontrol-enable: no\n"
        );
        let path = folder.path().join("nsd.conf");
        fs::write(&path, conf).unwrap();
        checked("nsd-checkconf", &path);
        let mut command = Command::new("nsd");
        command.args(["-d", "-c"]).arg(path);
        Self::ready(command, folder, port)
    }

    fn bind() -> Self {
        let (folder, port) = (tempfile::tempdir().unwrap(), free_port(false));
        let here = folder.path().display();
        let deployed = root().join("deploy/bind");
        fs::copy(
            deployed.join("example.com.zone"),
            folder.path().join("example.com.zone"),
        )
        .unwrap();
        let conf = fs::read_to_string(deployed.join("named.conf")).unwrap();
        let own = format!(
            "options {{\npid-file \"{here}/pid\"; session-keyfile \"{here}/session.key\";\n"
        );
        let conf = conf
            .replace("port 5300", &format!("port {port}"))
            .replace("/etc/bind", &here.to_string())
            .replace("/var/cache/bind", &here.to_string())
            .replacen("options {", &own, 1)
            + "controls { };\n";
        let path = folder.path().join("named.conf");
        fs::write(&path, conf).unwrap();
        checked("named-checkconf", &path);
        let mut command = Command::new("named");
        command.args(["-g", "-n", "1", "-c"]).arg(path);
        Self::ready(command, folder, port)
    }

    fn ready(command: Command, folder: TempDir, port: u16) -> Self {
        let process = Process::start(command, folder).wait(|_| serves(port));
        Self { process, port }
    }
}

fn checked(checker: &str, path: &Path) {
    let output = Command::new(checker)
        .arg(path)
        .output()
        .unwrap_or_else(|failure| panic!("{checker}: {failure}"));
    let said = format!(
        "{}{}",
        text(&output),
        String::from_utf8_lossy(&output.stderr)
    );
    assert!(output.status.success(), "{checker}: {said}");
}

/// A running dnscrub with a configuration as it is written, but on free ports and in a folder of its own.
struct Proxy {
    process: Process,
    port: u16,
}

impl Proxy {
    fn start(configuration: &str, page: Option<&Page>, backend: u16) -> Self {
        let folder = folder_for(page);
        let port = free_port(true);
        let adapted = elsewhere(configuration, folder.path(), port, backend);
        fs::write(folder.path().join("dnscrub.yaml"), adapted).unwrap();
        let mut command = dnscrub();
        command
            .args(["run", "--config"])
            .arg(folder.path().join("dnscrub.yaml"));
        let process = Process::start(command, folder).wait(|process| {
            let asked = dnscrub()
                .args(["upstreams", "--json", "--socket"])
                .arg(process.folder.path().join("sock"))
                .output();
            asked.is_ok_and(|output| output.status.success() && !text(&output).contains("untested"))
        });
        // what is known of zones is there when the first command asks
        let process = process.wait(|process| {
            let asked = dnscrub()
                .args(["zones", "--json", "--socket"])
                .arg(process.folder.path().join("sock"))
                .output();
            asked.is_ok_and(|output| {
                output.status.success() && !text(&output).contains("not loaded")
            })
        });
        Self { process, port }
    }

    fn config(&self) -> String {
        self.process
            .folder
            .path()
            .join("dnscrub.yaml")
            .display()
            .to_string()
    }

    fn socket(&self) -> PathBuf {
        self.process.folder.path().join("sock")
    }

    /// Runs a command of a console block; what it prints.
    fn run(&self, line: &str, place: &str) -> String {
        let words: Vec<String> = words(line)
            .iter()
            .map(|word| word.replace(CONFIG, &self.config()))
            .collect();
        let (program, arguments) = words.split_first().unwrap();
        let output = match program.as_str() {
            "dnscrub" => {
                let mut command = dnscrub();
                // files that a page names
                command
                    .args(arguments)
                    .current_dir(self.process.folder.path());
                if arguments[0] != "check" && !arguments.contains(&"--config".to_owned()) {
                    command.arg("--socket").arg(self.socket());
                }
                command.output().unwrap()
            }
            "dig" => kdig(
                self.port,
                &arguments.iter().map(String::as_str).collect::<Vec<_>>(),
            ),
            other => panic!("{place}: a console block cannot run {other}"),
        };
        assert!(
            output.status.success(),
            "{place}: {line}\n{}{}",
            text(&output),
            String::from_utf8_lossy(&output.stderr)
        );
        text(&output).replace(&self.config(), CONFIG)
    }
}

/// The configuration with other addresses and paths.
fn elsewhere(configuration: &str, folder: &Path, port: u16, backend: u16) -> String {
    let mut value: Value = serde_yaml::from_str(configuration).unwrap();
    let map = value.as_mapping_mut().unwrap();
    for (at, listener) in map["listen"]
        .as_sequence_mut()
        .unwrap()
        .iter_mut()
        .enumerate()
    {
        let port = if at == 0 { port } else { free_port(true) };
        listener["address"] =
            Value::from(vec![format!("127.0.0.1:{port}"), format!("[::1]:{port}")]);
    }
    for (_, pool) in map["pools"].as_mapping_mut().unwrap() {
        // there is one server, and a pool may name it only once
        let upstreams = pool["upstreams"].as_sequence_mut().unwrap();
        upstreams.truncate(1);
        let host = if upstreams[0]["address"]
            .as_str()
            .unwrap()
            .starts_with("[::1]")
        {
            "[::1]"
        } else {
            "127.0.0.1"
        };
        upstreams[0]["address"] = Value::from(format!("{host}:{backend}"));
    }
    for zone in map
        .get_mut("zones")
        .and_then(Value::as_sequence_mut)
        .into_iter()
        .flatten()
    {
        if let Some(server) = zone
            .get_mut("names")
            .and_then(|names| names.get_mut("axfr"))
        {
            *server = Value::from(format!("127.0.0.1:{backend}"));
        }
    }
    let section = |key: &str, value: String| {
        Value::from(Mapping::from_iter([(Value::from(key), Value::from(value))]))
    };
    let inside = |name: &str| folder.join(name).display().to_string();
    map.insert("control".into(), section("socket", inside("sock")));
    map.insert("state".into(), section("folder", inside("state")));
    map.insert("workers".into(), Value::from(2));
    if map.contains_key("metrics") {
        map.insert(
            "metrics".into(),
            section("address", format!("127.0.0.1:{}", free_port(false))),
        );
    }
    serde_yaml::to_string(&value).unwrap()
}

/// A line without what differs from run to run: numbers, times, and the words around them.
fn lasting(line: &str) -> Vec<&str> {
    let passing = ["just", "now", "ago", "in", "µs", "ms", "-"];
    line.split_whitespace()
        .filter(|word| !word.contains(|it: char| it.is_ascii_digit()) && !passing.contains(word))
        .collect()
}

/// Whether a printed line is the one shown.
fn is_like(shown: &str, printed: &str, exactly: bool) -> bool {
    let (start, open) = match shown.strip_suffix("...") {
        Some(start) => (start, true),
        None => (shown, false),
    };
    let parts = |line| {
        if exactly {
            str::split_whitespace(line).collect()
        } else {
            lasting(line)
        }
    };
    let (shown, printed) = (parts(start), parts(printed));
    if open {
        printed.starts_with(&shown)
    } else {
        printed == shown
    }
}

/// Compares what a page shows with what was printed; blank lines do not count.
fn assert_shown(shown: &[&str], printed: &str, exactly: bool, place: &str) {
    let filled = |line: &&str| !line.trim().is_empty();
    let shown: Vec<&str> = shown.iter().copied().filter(filled).collect();
    let mut lines = printed.lines().filter(filled);
    let mut anything = false;
    for line in shown {
        if line.trim() == "..." {
            anything = true;
            continue;
        }
        let found = if anything {
            lines.any(|printed| is_like(line, printed, exactly))
        } else {
            lines
                .next()
                .is_some_and(|printed| is_like(line, printed, exactly))
        };
        assert!(
            found,
            "{place}: not printed: {line}\n--- printed:\n{printed}"
        );
        anything = false;
    }
    let rest = lines.next();
    assert!(
        anything || rest.is_none(),
        "{place}: not shown: {}\n--- printed:\n{printed}",
        rest.unwrap_or_default()
    );
}

#[test]
fn what_the_consoles_show_is_what_happens() {
    let (nsd, bind) = (Backend::nsd(), Backend::bind());
    let usual = fs::read_to_string(root().join("deploy/dnscrub.yaml")).unwrap();
    let mut run = 0;
    for page in pages() {
        let mut configuration = usual.clone();
        for block in page.blocks() {
            if block.is("yaml") {
                configuration.clone_from(&block.text);
            }
            if block.fence[0] != "console" {
                continue;
            }
            let named = block
                .fence
                .get(1)
                .map(|path| fs::read_to_string(root().join(path)).unwrap());
            let backend = if page.name() == "docs/bind.md" {
                &bind
            } else {
                &nsd
            };
            let proxy = Proxy::start(
                named.as_ref().unwrap_or(&configuration),
                Some(&page),
                backend.port,
            );
            let mut lines = block.text.lines().peekable();
            while let Some(line) = lines.next() {
                let command = line
                    .strip_prefix("$ ")
                    .unwrap_or_else(|| panic!("{}: no command before: {line}", block.place));
                let mut shown = Vec::new();
                while let Some(line) = lines.next_if(|line| !line.starts_with("$ ")) {
                    shown.push(line);
                }
                let printed = proxy.run(command, &block.place);
                let exactly = command.starts_with("dig");
                assert_shown(
                    &shown,
                    &printed,
                    exactly,
                    &format!("{}: {command}", block.place),
                );
                run += 1;
            }
        }
    }
    assert!(run > 20, "{run}");
}

#[test]
fn shown_lines_are_compared_but_for_numbers_and_times() {
    assert!(is_like(
        "ns1 up 4s 210 µs passed, 1s ago",
        "ns1   up  11s  1.2 ms  passed, 900ms ago",
        false
    ));
    assert!(!is_like("ns1 up 4s", "ns1 down 4s", false));
    assert!(is_like("ns1 ...", "ns1 down 4s", false));
    assert!(!is_like("192.0.2.80", "192.0.2.81", true));
}

/// What deploy/ and the pages promise about a server behind dnscrub.
fn assert_safe_behind_dnscrub(folder: &str, backend: &Backend) {
    let written =
        fs::read_to_string(root().join("deploy").join(folder).join("dnscrub.yaml")).unwrap();
    let proxy = Proxy::start(&written, None, backend.port);
    for server in ["@127.0.0.1", "@::1"] {
        for transport in ["+notcp", "+tcp"] {
            let answer = asked(
                proxy.port,
                &[server, "www.example.com", "A", transport, "+short"],
            );
            assert_eq!(
                answer,
                "192.0.2.80\n",
                "{folder} {server} {transport}\n{}",
                proxy.process.log()
            );
        }
    }
    // the names of its zone are known
    let zones = proxy.run("dnscrub zones", folder);
    assert!(zones.contains(" fresh "), "{folder}: {zones}");
    // a key that is right from an address that is not
    let refused = asked(
        proxy.port,
        &["@127.0.0.1", "example.com", "AXFR", "-y", KEY],
    );
    assert!(
        !refused.contains("mail.example.com."),
        "{folder}: {refused}"
    );
    // signed queries pass unharmed
    let signed = kdig(
        proxy.port,
        &["@127.0.0.1", "www.example.com", "A", "-y", KEY],
    );
    assert!(
        signed.status.success() && text(&signed).contains("TSIG PSEUDOSECTION"),
        "{folder}: {}",
        text(&signed)
    );
    // nobody recurses through it
    let other = asked(proxy.port, &["@127.0.0.1", "www.example.org", "A", "+rec"]);
    assert!(other.contains("status: REFUSED"), "{folder}: {other}");
    // the server does not limit what comes from one address: NSD would stop at 200 a second
    assert_eq!(answered_of(500, proxy.port), 500, "{folder}");
    drop(proxy);

    let here = written.replace("192.0.2.53, ", "192.0.2.53, 127.0.0.1, ");
    assert_ne!(here, written);
    let proxy = Proxy::start(&here, None, backend.port);
    let without_key = asked(proxy.port, &["@127.0.0.1", "example.com", "AXFR"]);
    assert!(
        !without_key.contains("mail.example.com."),
        "{folder}: {without_key}"
    );
    let with_key = asked(
        proxy.port,
        &["@127.0.0.1", "example.com", "AXFR", "-y", KEY],
    );
    assert!(
        with_key.contains("mail.example.com."),
        "{folder}: {with_key}\n{}",
        backend.process.log()
    );
}

/// How many of so many queries, one after the other, are answered with TC=0.
fn answered_of(queries: u16, port: u16) -> usize {
    let socket = UdpSocket::bind((Ipv4Addr::LOCALHOST, 0)).unwrap();
    socket.connect((Ipv4Addr::LOCALHOST, port)).unwrap();
    socket
        .set_read_timeout(Some(Duration::from_secs(3)))
        .unwrap();
    let mut buffer = [0; 1232];
    let answered = |id: &u16| {
        let mut query = id.to_be_bytes().to_vec();
        query.extend(b"\x00\x00\x00\x01\x00\x00\x00\x00\x00\x00\x03www\x07example\x03com\x00\x00\x01\x00\x01");
        socket.send(&query).unwrap();
        socket.recv(&mut buffer).is_ok() && buffer[..2] == id.to_be_bytes() && buffer[2] & 2 == 0
    };
    (0..queries).filter(answered).count()
}

#[test]
fn nsd_is_safe_behind_dnscrub() {
    assert_safe_behind_dnscrub("nsd", &Backend::nsd());
}

#[test]
fn bind_is_safe_behind_dnscrub() {
    assert_safe_behind_dnscrub("bind", &Backend::bind());
}

#[test]
fn clients_inside_get_the_view_made_for_them() {
    let page = pages()
        .into_iter()
        .find(|page| page.name() == "docs/bind.md")
        .unwrap();
    let shown = |fence: &str, word: &str| {
        let mut blocks = page.blocks().into_iter();
        let found = blocks.find(|block| block.is(fence) && block.text.contains(word));
        found.unwrap().text
    };
    let (folder, port) = (tempfile::tempdir().unwrap(), free_port(true));
    let here = folder.path().display().to_string();
    let zone = fs::read_to_string(root().join("deploy/bind/example.com.zone")).unwrap();
    fs::write(folder.path().join("example.com.zone"), &zone).unwrap();
    let inside = zone.replace("192.0.2.80", "10.0.0.80");
    fs::write(folder.path().join("internal.example.com.zone"), inside).unwrap();
    let own = format!(
        "controls {{ }};\noptions {{\ndirectory \"{here}\"; pid-file \"{here}/pid\"; session-keyfile \"{here}/session.key\";\n"
    );
    let conf = shown("named", "match-destinations { ::1; }")
        .replace("port 5300", &format!("port {port}"))
        .replace("/etc/bind", &here)
        .replacen("options {", &own, 1);
    let path = folder.path().join("named.conf");
    fs::write(&path, conf).unwrap();
    let mut command = Command::new("named");
    command.args(["-g", "-n", "1", "-c"]).arg(path);
    let backend = Backend::ready(command, folder, port);

    // ::1 is inside, 127.0.0.1 is not
    let yaml = shown("yaml", "internal-view").replace("10.0.0.0/8", "\"::1\"");
    let proxy = Proxy::start(&yaml, None, backend.port);
    let ask = |server| asked(proxy.port, &[server, "www.example.com", "A", "+short"]);
    assert_eq!(ask("@127.0.0.1"), "192.0.2.80\n", "{}", proxy.process.log());
    assert_eq!(ask("@::1"), "10.0.0.80\n", "{}", proxy.process.log());
}

#[test]
fn parts_of_servers_configurations_are_understood() {
    let secret = "bm90IGEgc2VjcmV0LCByZXBsYWNlIGl0ISEhISEhISE=";
    for block in pages().iter().flat_map(Page::blocks) {
        let (checker, key, needs_key) = match () {
            () if block.is("nsd") => (
                "nsd-checkconf",
                format!("key:\nname: \"transfer\"\nalgorithm: hmac-sha256\nsecret: \"{secret}\"\n"),
                "key:",
            ),
            () if block.is("named") => (
                "named-checkconf",
                format!("key \"transfer\" {{ algorithm hmac-sha256; secret \"{secret}\"; }};\n"),
                "key \"",
            ),
            () => continue,
        };
        let mut conf = block.text.replace('…', secret);
        if !conf.contains(needs_key) {
            conf = format!("{key}{conf}");
        }
        if checker == "nsd-checkconf" && conf.contains("zone:") {
            conf.push_str("    zonefile: \"example.com.zone\"\n");
        }
        let folder = tempfile::tempdir().unwrap();
        let path = folder.path().join("conf");
        fs::write(&path, &conf).unwrap();
        let output = Command::new(checker).arg(&path).output().unwrap();
        let said = format!(
            "{}{}",
            text(&output),
            String::from_utf8_lossy(&output.stderr)
        );
        assert!(output.status.success(), "{}: {said}\n{conf}", block.place);
    }
}

#[test]
fn the_alerts_shown_are_understood_by_prometheus() {
    let page = fs::read_to_string(root().join("docs/operations.md")).unwrap();
    let (_, table) = page.split_once("| what | expression |").unwrap();
    let mut rules = "groups:\n  - name: dnscrub\n    rules:\n".to_owned();
    let rows = table
        .lines()
        .skip(2)
        .take_while(|line| line.starts_with('|'));
    for (number, row) in rows.enumerate() {
        let expression = row.split('`').nth(1).unwrap();
        let _ = write!(
            rules,
            "      - alert: A{number}\n        expr: '{expression}'\n"
        );
    }
    assert!(rules.contains("A5"), "{rules}");
    let folder = tempfile::tempdir().unwrap();
    let path = folder.path().join("rules.yaml");
    fs::write(&path, rules).unwrap();
    let output = Command::new("promtool")
        .args(["check", "rules"])
        .arg(path)
        .output();
    let output = output.expect("promtool (Debian package prometheus) runs");
    let said = String::from_utf8_lossy(&output.stderr);
    assert!(output.status.success(), "{}{said}", text(&output));
}

#[test]
fn the_systemd_unit_fits_the_program() {
    let folder = root().join("deploy/systemd");
    let unit = fs::read_to_string(folder.join("dnscrub.service")).unwrap();
    let users = fs::read_to_string(folder.join("dnscrub.sysusers")).unwrap();
    assert!(unit.contains("\nUser=dnscrub\n") && users.contains("\nu dnscrub "));
    // the folders of the program's defaults
    let defaults = load(folder_for(None).path(), &whole("")).unwrap().startup;
    assert_eq!(
        defaults.control.socket.parent().unwrap(),
        Path::new("/run/dnscrub")
    );
    assert_eq!(defaults.state_folder, Path::new("/var/lib/dnscrub"));
    assert!(
        unit.contains("\nRuntimeDirectory=dnscrub\n")
            && unit.contains("\nStateDirectory=dnscrub\n")
    );

    // what limits in the kernel take, and the message says where it is missing
    let more = fs::read_to_string(folder.join("kernel-limits.conf")).unwrap();
    for right in ["CAP_BPF", "CAP_PERFMON", "CAP_NET_ADMIN"] {
        assert!(!unit.contains(right));
        let given = more.lines().filter(|line| line.contains(right));
        assert_eq!(given.count(), 2, "{right} is ambient and within bounds");
    }
    assert!(more.contains("\nSystemCallFilter=bpf\n"));

    // systemd itself has its say where it is installed
    if Command::new("systemd-analyze")
        .arg("--version")
        .output()
        .is_err()
    {
        return;
    }
    let copy = tempfile::tempdir().unwrap();
    let path = copy.path().join("dnscrub.service");
    fs::write(
        &path,
        unit.replace("/usr/local/bin/dnscrub", env!("CARGO_BIN_EXE_dnscrub")),
    )
    .unwrap();
    let verified = Command::new("systemd-analyze")
        .arg("verify")
        .arg(&path)
        .output()
        .unwrap();
    let said = String::from_utf8_lossy(&verified.stderr);
    assert!(!said.contains("dnscrub.service"), "{said}");
    let rated = Command::new("systemd-analyze")
        .args(["security", "--offline=true", "--threshold=20"])
        .arg(&path)
        .output()
        .unwrap();
    assert!(rated.status.success(), "{}", text(&rated));
}
