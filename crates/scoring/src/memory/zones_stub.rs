pub(crate) enum Presence { Exists, EmptyNonTerminal, Wildcard, Delegated, Dname, Missing{certain: bool}, Unknown }
#[derive(Debug, Default)]
pub struct Zones;
#[derive(Debug)]
pub struct Zone { name: dnscrub_wire::Name }
impl Zone { pub(crate) fn name(&self) -> &dnscrub_wire::Name { &self.name } pub(crate) fn look_up(&self, _: &dnscrub_wire::Name, _: u64) -> Presence { Presence::Unknown } }
impl Zones { pub(crate) fn find(&self, _: &dnscrub_wire::Name) -> Option<(u16, &std::sync::Arc<Zone>)> { None } }
