//! The sections `acl:`, `opcodes:`, `sanity:` and `blocklist:` of the configuration file, and how
//! each becomes what the packet filter works with.

use std::borrow::Cow;
use std::collections::BTreeMap;
use std::fmt;
use std::path::PathBuf;

use dnscrub_wire::{Opcode, qclass};
use ipnet::IpNet;
use schemars::{JsonSchema, Schema, SchemaGenerator, json_schema};
use serde::{Deserialize, Deserializer, Serialize, Serializer, de};

use crate::class::ClassPolicy;
use crate::opcode::{OpcodePolicy, OpcodeRule};
pub use crate::prefix::Prefix;
use crate::sanity::SanityPolicy;

/// What is wrong in a configuration, and where.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct ConfigError {
    /// Dotted path from the top of the file, such as `blocklist.files[1]`.
    pub path: String,
    /// What was found, and what was expected.
    pub message: String,
}

impl fmt::Display for ConfigError {
    fn fmt(&self, formatter: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(formatter, "{}: {}", self.path, self.message)
    }
}

impl std::error::Error for ConfigError {}

fn error(path: impl Into<String>, message: impl Into<String>) -> ConfigError {
    ConfigError {
        path: path.into(),
        message: message.into(),
    }
}

fn nets(prefixes: &[Prefix]) -> impl Iterator<Item = IpNet> {
    prefixes.iter().map(|prefix| prefix.net())
}

/// One error for each prefix that stands in a list twice.
fn repeated(path: &str, prefixes: &[Prefix], errors: &mut Vec<ConfigError>) {
    let mut first = BTreeMap::new();
    for (at, prefix) in prefixes.iter().enumerate() {
        if let Some(earlier) = first.insert(prefix, at) {
            errors.push(error(
                format!("{path}[{at}]"),
                format!("{prefix} is already listed at {path}[{earlier}]"),
            ));
        }
    }
}

fn result<T>(errors: Vec<ConfigError>, value: impl FnOnce() -> T) -> Result<T, Vec<ConfigError>> {
    if errors.is_empty() {
        Ok(value())
    } else {
        Err(errors)
    }
}

/// Whom to serve at all.
///
/// The longest prefix that covers a source decides. With an `allow` list, sources in neither list
/// are denied; without one, they are served.
///
/// ```yaml
/// acl:
///   allow: [ 192.0.2.0/24, "2001:db8::/32" ]
///   deny: [ 192.0.2.128/25 ]
///   denied: refuse
/// ```
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields, rename_all = "kebab-case", default)]
pub struct Acl {
    /// Sources to serve. Empty: everybody who is not denied.
    pub allow: Vec<Prefix>,
    /// Sources not to serve.
    pub deny: Vec<Prefix>,
    /// What the denied get.
    pub denied: Denied,
}

/// How something is turned away.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "kebab-case")]
pub enum Denied {
    /// No answer. Gives forged sources nothing to reflect.
    #[default]
    Drop,
    /// An answer with rcode REFUSED.
    Refuse,
}

impl Acl {
    /// Builds the access list.
    ///
    /// # Errors
    /// Prefixes that are listed twice.
    pub fn build(&self) -> Result<crate::Acl, Vec<ConfigError>> {
        let mut errors = Vec::new();
        repeated("acl.allow", &self.allow, &mut errors);
        repeated("acl.deny", &self.deny, &mut errors);
        for (at, prefix) in self.deny.iter().enumerate() {
            if let Some(allowed) = self.allow.iter().position(|allow| allow == prefix) {
                let message = format!("{prefix} is also allowed, at acl.allow[{allowed}]");
                errors.push(error(format!("acl.deny[{at}]"), message));
            }
        }
        result(errors, || {
            crate::Acl::new(
                nets(&self.allow),
                nets(&self.deny),
                self.denied == Denied::Refuse,
            )
        })
    }
}

/// What is done with each kind of query (opcode).
///
/// NOTIFY and UPDATE change what a backend does, and the backend sees the proxy as their sender; so
/// they are served only from the prefixes listed. Over UDP a source can be forged: let the backend
/// ask for TSIG.
///
/// ```yaml
/// opcodes:
///   notify: { from: [ 192.0.2.53 ] }
///   update: { from: [ "2001:db8:1::/48" ], otherwise: drop }
/// ```
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields, rename_all = "kebab-case", default)]
pub struct Opcodes {
    /// Ordinary queries (0).
    pub query: OpcodeAction,
    /// Zone change notices (4, RFC 1996).
    pub notify: ListedOpcode,
    /// Dynamic updates (5, RFC 2136).
    pub update: ListedOpcode,
    /// Server status requests (2).
    pub status: OpcodeAction,
    /// All others.
    pub other: OpcodeAction,
}

impl Default for Opcodes {
    fn default() -> Self {
        Self {
            query: OpcodeAction::Serve,
            notify: ListedOpcode::default(),
            update: ListedOpcode::default(),
            status: OpcodeAction::Notimp,
            other: OpcodeAction::Notimp,
        }
    }
}

/// What a query gets because of its opcode.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "kebab-case")]
pub enum OpcodeAction {
    /// It is judged and forwarded like any other.
    Serve,
    /// Rcode REFUSED.
    Refuse,
    /// Rcode NOTIMP: this kind of query is not implemented.
    Notimp,
    /// No answer.
    Drop,
}

impl From<OpcodeAction> for OpcodeRule {
    fn from(action: OpcodeAction) -> Self {
        match action {
            OpcodeAction::Serve => Self::Serve,
            OpcodeAction::Refuse => Self::Refuse,
            OpcodeAction::Notimp => Self::NotImplemented,
            OpcodeAction::Drop => Self::Drop,
        }
    }
}

/// An opcode that is served from some prefixes only.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields, rename_all = "kebab-case", default)]
pub struct ListedOpcode {
    /// Sources it is served from.
    pub from: Vec<Prefix>,
    /// What all other sources get.
    pub otherwise: OpcodeAction,
}

impl Default for ListedOpcode {
    fn default() -> Self {
        Self {
            from: Vec::new(),
            otherwise: OpcodeAction::Refuse,
        }
    }
}

impl Opcodes {
    /// Builds the policy.
    ///
    /// # Errors
    /// Prefixes that are listed twice, or without effect.
    pub fn build(&self) -> Result<OpcodePolicy, Vec<ConfigError>> {
        let mut errors = Vec::new();
        for (path, listed) in [
            ("opcodes.notify", &self.notify),
            ("opcodes.update", &self.update),
        ] {
            repeated(&format!("{path}.from"), &listed.from, &mut errors);
            if listed.otherwise == OpcodeAction::Serve && !listed.from.is_empty() {
                let message = "has no effect, since all other sources are served too";
                errors.push(error(format!("{path}.from"), message));
            }
        }
        result(errors, || {
            OpcodePolicy::uniform(self.other.into())
                .with(Opcode::QUERY, self.query.into())
                .with(Opcode::STATUS, self.status.into())
                .with_listed(
                    Opcode::NOTIFY,
                    nets(&self.notify.from),
                    self.notify.otherwise.into(),
                )
                .with_listed(
                    Opcode::UPDATE,
                    nets(&self.update.from),
                    self.update.otherwise.into(),
                )
        })
    }
}

/// What packets get that are not well-formed queries, and which classes are served.
///
/// Packets that are themselves responses, or have no whole header, are never answered. Ambiguous
/// EDNS always gets FORMERR (RFC 6891 section 6.1.1).
///
/// ```yaml
/// sanity:
///   malformed: formerr
///   classes: [ IN ]
/// ```
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields, rename_all = "kebab-case", default)]
pub struct Sanity {
    /// What malformed packets get.
    pub malformed: MalformedAction,
    /// The classes that are served.
    pub classes: Vec<Class>,
    /// What queries of other classes get.
    pub other_classes: Denied,
}

impl Default for Sanity {
    fn default() -> Self {
        Self {
            malformed: MalformedAction::default(),
            classes: vec![Class(qclass::IN), Class(qclass::CH)],
            other_classes: Denied::Refuse,
        }
    }
}

/// What a malformed packet gets.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "kebab-case")]
pub enum MalformedAction {
    /// No answer: most of it is forged or noise.
    #[default]
    Drop,
    /// A bare header with rcode FORMERR.
    Formerr,
}

impl Sanity {
    /// Builds both policies.
    ///
    /// # Errors
    /// A class that is listed twice, or none at all.
    pub fn build(&self) -> Result<(SanityPolicy, ClassPolicy), Vec<ConfigError>> {
        let mut errors = Vec::new();
        if self.classes.is_empty() {
            errors.push(error(
                "sanity.classes",
                "found no class, expected at least one, such as IN",
            ));
        }
        for (at, class) in self.classes.iter().enumerate() {
            if let Some(first) = self
                .classes
                .iter()
                .position(|other| other == class)
                .filter(|first| *first < at)
            {
                let message = format!("{class} is already listed at sanity.classes[{first}]");
                errors.push(error(format!("sanity.classes[{at}]"), message));
            }
        }
        result(errors, || {
            let classes = self.classes.iter().map(|class| class.0);
            (
                SanityPolicy::new(self.malformed == MalformedAction::Formerr),
                ClassPolicy::new(classes, self.other_classes == Denied::Drop),
            )
        })
    }
}

/// A class: `IN`, `CH`, `HS`, `NONE`, `ANY`, or `CLASS` and a number (RFC 3597 section 5).
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Class(pub u16);

/// Names of classes (IANA "DNS CLASSes").
const CLASSES: [(u16, &str); 5] = [
    (qclass::IN, "IN"),
    (qclass::CH, "CH"),
    (4, "HS"),
    (qclass::NONE, "NONE"),
    (qclass::ANY, "ANY"),
];

impl fmt::Display for Class {
    fn fmt(&self, formatter: &mut fmt::Formatter<'_>) -> fmt::Result {
        match CLASSES.iter().find(|(number, _)| *number == self.0) {
            Some((_, name)) => formatter.write_str(name),
            None => write!(formatter, "CLASS{}", self.0),
        }
    }
}

impl Serialize for Class {
    fn serialize<S: Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
        serializer.collect_str(self)
    }
}

impl<'de> Deserialize<'de> for Class {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        let text = Cow::<'de, str>::deserialize(deserializer)?;
        let upper = text.to_ascii_uppercase();
        let named = CLASSES
            .iter()
            .find(|(_, name)| *name == upper)
            .map(|(number, _)| *number);
        named.or_else(|| upper.strip_prefix("CLASS")?.parse().ok()).map(Self).ok_or_else(|| {
            let found: String = text.chars().take(60).flat_map(char::escape_debug).collect();
            de::Error::custom(format_args!(
                "found \"{found}\", expected a class: IN, CH, HS, NONE, ANY or CLASS and a number up to 65535"
            ))
        })
    }
}

impl JsonSchema for Class {
    fn schema_name() -> Cow<'static, str> {
        "Class".into()
    }

    fn json_schema(_: &mut SchemaGenerator) -> Schema {
        json_schema!({
            "type": "string",
            "description": "A class: `IN`, `CH`, `HS`, `NONE`, `ANY`, or `CLASS` and a number.",
        })
    }
}

/// Sources that are never served, however they behave.
///
/// Static entries come from list files, one prefix a line, optionally with a reason behind it;
/// changed files are loaded again by themselves. Dynamic ones come from rules, incidents, the API
/// and the command line.
///
/// ```yaml
/// blocklist:
///   files: [ lists/drop.txt ]
///   never-block: [ 192.0.2.0/24 ]
/// ```
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields, rename_all = "kebab-case", default)]
pub struct Blocklist {
    /// List files, by paths relative to the configuration file.
    pub files: Vec<PathBuf>,
    /// Prefixes that are never blocked, whatever lists, rules or operators say.
    pub never_block: Vec<Prefix>,
    /// The most entries of all files together; a file that would exceed it is refused whole.
    pub max_static: usize,
    /// The most dynamic entries. When it is reached, additions by rules and incidents are refused
    /// and counted; one by an operator evicts the entry that expires first, automatic entries
    /// before operators' ones.
    pub max_dynamic: usize,
    /// The shortest prefixes that files, rules and incidents may block, so that one wrong line does
    /// not block half the Internet. Operators may.
    pub shortest_prefix: ShortestPrefix,
}

impl Default for Blocklist {
    fn default() -> Self {
        let limits = crate::Limits::default();
        Self {
            files: Vec::new(),
            never_block: Vec::new(),
            max_static: limits.static_entries,
            max_dynamic: limits.dynamic_entries,
            shortest_prefix: ShortestPrefix::default(),
        }
    }
}

/// Prefix lengths in bits.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields, rename_all = "kebab-case", default)]
pub struct ShortestPrefix {
    /// IPv4, 0 to 32.
    pub v4: u8,
    /// IPv6, 0 to 128.
    pub v6: u8,
}

impl Default for ShortestPrefix {
    fn default() -> Self {
        let limits = crate::Limits::default();
        Self {
            v4: limits.shortest_v4,
            v6: limits.shortest_v6,
        }
    }
}

/// Entries there may ever be of a kind; positions are 32-bit numbers with room to spare.
const MOST_ENTRIES: usize = 100_000_000;

impl Blocklist {
    /// The limits of the store. Files and prefixes that are never blocked are taken from the fields
    /// as they are.
    ///
    /// # Errors
    /// Files or prefixes listed twice, and numbers out of range.
    pub fn build(&self) -> Result<crate::Limits, Vec<ConfigError>> {
        let mut errors = Vec::new();
        for (at, file) in self.files.iter().enumerate() {
            if file.as_os_str().is_empty() {
                errors.push(error(
                    format!("blocklist.files[{at}]"),
                    "found an empty path, expected a list file",
                ));
            } else if let Some(first) = self
                .files
                .iter()
                .position(|other| other == file)
                .filter(|first| *first < at)
            {
                let message = format!(
                    "{} is already listed at blocklist.files[{first}]",
                    file.display()
                );
                errors.push(error(format!("blocklist.files[{at}]"), message));
            }
        }
        repeated("blocklist.never-block", &self.never_block, &mut errors);
        for (path, entries) in [
            ("blocklist.max-static", self.max_static),
            ("blocklist.max-dynamic", self.max_dynamic),
        ] {
            if entries > MOST_ENTRIES {
                errors.push(error(
                    path,
                    format!("found {entries}, expected a number up to {MOST_ENTRIES}"),
                ));
            }
        }
        for (path, len, most) in [
            ("blocklist.shortest-prefix.v4", self.shortest_prefix.v4, 32),
            ("blocklist.shortest-prefix.v6", self.shortest_prefix.v6, 128),
        ] {
            if len > most {
                errors.push(error(
                    path,
                    format!("found {len}, expected a prefix length from 0 to {most}"),
                ));
            }
        }
        result(errors, || crate::Limits {
            static_entries: self.max_static,
            dynamic_entries: self.max_dynamic,
            shortest_v4: self.shortest_prefix.v4,
            shortest_v6: self.shortest_prefix.v6,
        })
    }

    /// The prefixes that are never blocked, for
    /// [`BlocklistStore::set_never_block`](crate::BlocklistStore::set_never_block).
    pub fn never_block(&self) -> impl Iterator<Item = IpNet> {
        nets(&self.never_block)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn read<T: de::DeserializeOwned>(yaml: &str) -> Result<T, String> {
        serde_yaml::from_str(yaml).map_err(|error| error.to_string())
    }

    fn errors<T: fmt::Debug>(result: Result<T, Vec<ConfigError>>) -> Vec<String> {
        result
            .unwrap_err()
            .iter()
            .map(ToString::to_string)
            .collect()
    }

    #[test]
    fn empty_sections_are_the_defaults() {
        assert_eq!(read::<Acl>("{}").unwrap(), Acl::default());
        assert_eq!(read::<Opcodes>("{}").unwrap(), Opcodes::default());
        assert_eq!(read::<Sanity>("{}").unwrap(), Sanity::default());
        assert_eq!(read::<Blocklist>("{}").unwrap(), Blocklist::default());
        assert!(Acl::default().build().is_ok() && Opcodes::default().build().is_ok());
        assert!(Sanity::default().build().is_ok());
        assert_eq!(
            Blocklist::default().build().unwrap(),
            crate::Limits::default()
        );
    }

    #[test]
    fn the_access_list_is_built_as_written() {
        let acl: Acl =
            read("{ allow: [192.0.2.0/24], deny: [192.0.2.7], denied: refuse }").unwrap();
        let acl = acl.build().unwrap();
        assert!(acl.allows("192.0.2.1".parse().unwrap()));
        assert!(!acl.allows("192.0.2.7".parse().unwrap()));
        let acl: Acl =
            read("{ allow: [192.0.2.0/24, '::1'], deny: ['::1', '::2', '::2'] }").unwrap();
        assert_eq!(
            errors(acl.build()),
            [
                "acl.deny[2]: ::2/128 is already listed at acl.deny[1]",
                "acl.deny[0]: ::1/128 is also allowed, at acl.allow[1]",
            ]
        );
    }

    #[test]
    fn a_bad_value_says_what_was_expected() {
        let error = read::<Acl>("{ deny: [192.0.2.7/24] }").unwrap_err();
        assert!(
            error.contains("expected no address bits behind the prefix length"),
            "{error}"
        );
        let error = read::<Sanity>("{ classes: [INN] }").unwrap_err();
        assert!(error.contains("found \"INN\", expected a class"), "{error}");
        for yaml in ["{ allowed: [] }", "{ denied: ignore }"] {
            assert!(read::<Acl>(yaml).is_err(), "{yaml}");
        }
    }

    #[test]
    fn opcodes_are_built_as_written() {
        let opcodes: Opcodes =
            read("{ notify: { from: [192.0.2.53] }, status: drop, query: serve }").unwrap();
        assert_eq!(opcodes.update, ListedOpcode::default());
        assert!(opcodes.build().is_ok());
        let opcodes: Opcodes = read("update: { from: [192.0.2.53], otherwise: serve }").unwrap();
        assert_eq!(
            errors(opcodes.build()),
            ["opcodes.update.from: has no effect, since all other sources are served too"]
        );
    }

    #[test]
    fn classes_have_names_and_numbers() {
        let sanity: Sanity = read(
            "{ classes: [in, CLASS3, HS, class257], malformed: formerr, other-classes: drop }",
        )
        .unwrap();
        let numbers: Vec<_> = sanity.classes.iter().map(|class| class.0).collect();
        assert_eq!(numbers, [1, 3, 4, 257]);
        let shown: Vec<_> = sanity.classes.iter().map(ToString::to_string).collect();
        assert_eq!(shown, ["IN", "CH", "HS", "CLASS257"]);
        assert!(sanity.build().is_ok());
        assert_eq!(
            errors(read::<Sanity>("{ classes: [CH, CLASS3] }").unwrap().build()),
            ["sanity.classes[1]: CH is already listed at sanity.classes[0]"]
        );
        assert_eq!(
            errors(read::<Sanity>("{ classes: [] }").unwrap().build()),
            ["sanity.classes: found no class, expected at least one, such as IN"]
        );
    }

    #[test]
    fn the_blocklist_is_checked() {
        let blocklist: Blocklist = read(
            "{ files: [a, b, a, ''], never-block: ['192.0.2.1', '192.0.2.1/32'], \
             max-dynamic: 1000000000, shortest-prefix: { v4: 33 } }",
        )
        .unwrap();
        assert_eq!(
            errors(blocklist.build()),
            [
                "blocklist.files[2]: a is already listed at blocklist.files[0]",
                "blocklist.files[3]: found an empty path, expected a list file",
                "blocklist.never-block[1]: 192.0.2.1/32 is already listed at blocklist.never-block[0]",
                "blocklist.max-dynamic: found 1000000000, expected a number up to 100000000",
                "blocklist.shortest-prefix.v4: found 33, expected a prefix length from 0 to 32",
            ]
        );
    }

    /// The examples in the documentation of the sections.
    #[test]
    fn examples_are_valid() {
        #[derive(Deserialize)]
        #[serde(deny_unknown_fields)]
        struct Sections {
            acl: Option<Acl>,
            opcodes: Option<Opcodes>,
            sanity: Option<Sanity>,
            blocklist: Option<Blocklist>,
        }
        let mut examples = 0;
        for example in include_str!("config.rs").split("/// ```yaml\n").skip(1) {
            let Some((example, _)) = example.split_once("/// ```\n") else {
                continue;
            };
            let yaml: String = example
                .lines()
                .map(|line| {
                    line.trim_start_matches("///")
                        .strip_prefix(' ')
                        .unwrap_or("")
                        .to_owned()
                        + "\n"
                })
                .collect();
            let sections: Sections = read(&yaml).unwrap();
            let valid = [
                sections.acl.is_none_or(|acl| acl.build().is_ok()),
                sections
                    .opcodes
                    .is_none_or(|opcodes| opcodes.build().is_ok()),
                sections.sanity.is_none_or(|sanity| sanity.build().is_ok()),
                sections
                    .blocklist
                    .is_none_or(|blocklist| blocklist.build().is_ok()),
            ];
            assert_eq!(valid, [true; 4], "{yaml}");
            examples += 1;
        }
        assert_eq!(examples, 4);
    }
}
