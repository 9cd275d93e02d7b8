//! One entry of the blocklist, as it is shown and stored.

use std::borrow::Cow;
use std::fmt;
use std::str::FromStr;
use std::time::SystemTime;

use ipnet::IpNet;
use serde::{Deserialize, Deserializer, Serialize, Serializer, de};

/// Why a prefix is blocked, from where, since when, until when, and how often it hit. Times are
/// written as RFC 3339 in UTC.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Entry {
    /// The blocked prefix.
    pub prefix: IpNet,
    /// In the words of whoever added it; at most 255 octets, may be empty.
    pub reason: String,
    /// Who added it.
    pub origin: Origin,
    /// When it was first added; for a static entry, when its list first named it.
    #[serde(with = "timestamp")]
    pub created: SystemTime,
    /// When it ends; never without. Static entries end with their list.
    #[serde(
        default,
        with = "optional_timestamp",
        skip_serializing_if = "Option::is_none"
    )]
    pub expires: Option<SystemTime>,
    /// Packets dropped because of it.
    #[serde(default)]
    pub hits: u64,
}

impl Entry {
    /// The entry as one line of a list file, which [`list_lines`](crate::list_lines) reads back.
    #[must_use]
    pub fn list_line(&self) -> String {
        if self.reason.is_empty() {
            self.prefix.to_string()
        } else {
            format!("{} # {}", self.prefix, self.reason)
        }
    }
}

/// Who added an entry. Written `list:lists/drop.txt`, `rule:any-flood`, `incident:17`,
/// `api` or `cli`.
#[derive(Clone, Debug, PartialEq, Eq, Hash)]
pub enum Origin {
    /// A list file, by the name it was loaded under.
    List(String),
    /// A rule, by name.
    Rule(String),
    /// An incident, by number.
    Incident(String),
    /// An operator, over the API.
    Api,
    /// An operator, on the command line.
    Cli,
}

impl Origin {
    /// The kind of origin: `list`, `rule`, `incident`, `api` or `cli`.
    #[must_use]
    pub const fn kind(&self) -> &'static str {
        match self {
            Self::List(_) => "list",
            Self::Rule(_) => "rule",
            Self::Incident(_) => "incident",
            Self::Api => "api",
            Self::Cli => "cli",
        }
    }

    /// Which list, rule or incident.
    #[must_use]
    pub fn name(&self) -> Option<&str> {
        match self {
            Self::List(name) | Self::Rule(name) | Self::Incident(name) => Some(name),
            Self::Api | Self::Cli => None,
        }
    }

    /// Whether the program added it by itself.
    #[must_use]
    pub const fn is_automatic(&self) -> bool {
        matches!(self, Self::Rule(_) | Self::Incident(_))
    }
}

impl fmt::Display for Origin {
    fn fmt(&self, formatter: &mut fmt::Formatter<'_>) -> fmt::Result {
        formatter.write_str(self.kind())?;
        match self.name() {
            Some(name) => write!(formatter, ":{name}"),
            None => Ok(()),
        }
    }
}

impl FromStr for Origin {
    type Err = &'static str;

    fn from_str(text: &str) -> Result<Self, &'static str> {
        match text.split_once(':') {
            None if text == "api" => Ok(Self::Api),
            None if text == "cli" => Ok(Self::Cli),
            Some(("list", name)) => Ok(Self::List(name.to_owned())),
            Some(("rule", name)) => Ok(Self::Rule(name.to_owned())),
            Some(("incident", name)) => Ok(Self::Incident(name.to_owned())),
            _ => Err("expected an origin: list:NAME, rule:NAME, incident:NUMBER, api or cli"),
        }
    }
}

impl Serialize for Origin {
    fn serialize<S: Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
        serializer.collect_str(self)
    }
}

impl<'de> Deserialize<'de> for Origin {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        Cow::<'de, str>::deserialize(deserializer)?
            .parse()
            .map_err(de::Error::custom)
    }
}

/// Which entries a listing shows; everything by default.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct EntryFilter {
    /// Only of this origin: a kind (`rule`) or a kind and a name (`rule:any-flood`).
    pub origin: Option<String>,
    /// Only prefixes that are this one or inside it.
    pub within: Option<IpNet>,
    /// Only with this text in the reason, exactly as written.
    pub reason: Option<String>,
}

impl EntryFilter {
    pub(super) fn takes_origin(&self, kind: &str, name: Option<&str>) -> bool {
        self.origin
            .as_deref()
            .is_none_or(|wanted| match wanted.split_once(':') {
                Some((wanted_kind, wanted_name)) => {
                    wanted_kind == kind && Some(wanted_name) == name
                }
                None => wanted == kind,
            })
    }

    pub(super) fn takes_prefix(&self, prefix: IpNet) -> bool {
        self.within
            .is_none_or(|within| crate::prefix::canonical(within).contains(&prefix))
    }

    pub(super) fn takes_reason(&self, reason: &str) -> bool {
        self.reason
            .as_deref()
            .is_none_or(|wanted| reason.contains(wanted))
    }
}

mod timestamp {
    use std::borrow::Cow;
    use std::time::SystemTime;

    use serde::{Deserialize, Deserializer, Serializer, de};

    pub(super) fn serialize<S: Serializer>(
        time: &SystemTime,
        serializer: S,
    ) -> Result<S::Ok, S::Error> {
        serializer.collect_str(&humantime::format_rfc3339(*time))
    }

    pub(super) fn deserialize<'de, D: Deserializer<'de>>(
        deserializer: D,
    ) -> Result<SystemTime, D::Error> {
        humantime::parse_rfc3339(&Cow::<'de, str>::deserialize(deserializer)?)
            .map_err(de::Error::custom)
    }
}

mod optional_timestamp {
    use std::time::SystemTime;

    use serde::{Deserialize, Deserializer, Serializer};

    #[derive(Deserialize)]
    struct Timestamp(#[serde(with = "super::timestamp")] SystemTime);

    pub(super) fn serialize<S: Serializer>(
        time: &Option<SystemTime>,
        serializer: S,
    ) -> Result<S::Ok, S::Error> {
        match time {
            Some(time) => super::timestamp::serialize(time, serializer),
            None => serializer.serialize_none(),
        }
    }

    pub(super) fn deserialize<'de, D: Deserializer<'de>>(
        deserializer: D,
    ) -> Result<Option<SystemTime>, D::Error> {
        Ok(Option::<Timestamp>::deserialize(deserializer)?.map(|Timestamp(time)| time))
    }
}

#[cfg(test)]
mod tests {
    use std::time::Duration;

    use super::*;

    #[test]
    fn entries_survive_json() {
        let created = SystemTime::UNIX_EPOCH + Duration::new(1_700_000_000, 123_456_789);
        let mut entry = Entry {
            prefix: "192.0.2.0/24".parse().unwrap(),
            reason: "too many \"quotes\"".to_owned(),
            origin: Origin::Rule("any: flood".to_owned()),
            created,
            expires: Some(created + Duration::from_secs(600)),
            hits: 7,
        };
        let json = serde_json::to_string(&entry).unwrap();
        assert!(json.contains("\"origin\":\"rule:any: flood\""), "{json}");
        assert!(
            json.contains("\"created\":\"2023-11-14T22:13:20.123456789Z\""),
            "{json}"
        );
        assert_eq!(serde_json::from_str::<Entry>(&json).unwrap(), entry);
        entry.expires = None;
        let json = serde_json::to_string(&entry).unwrap();
        assert!(!json.contains("expires"));
        assert_eq!(serde_json::from_str::<Entry>(&json).unwrap(), entry);
    }

    #[test]
    fn origins_survive_text() {
        for text in [
            "list:lists/drop.txt",
            "rule:a",
            "incident:b:c",
            "api",
            "cli",
        ] {
            assert_eq!(text.parse::<Origin>().unwrap().to_string(), text);
        }
        for text in ["", "rule", "feed:x", "api:x"] {
            assert!(text.parse::<Origin>().is_err(), "{text}");
        }
    }
}
