//! Reads the file and what it includes into one [`File`], and keeps where everything was written.

use std::{
    collections::BTreeMap,
    ffi::OsStr,
    io,
    path::{Component, Path, PathBuf},
};

use serde::de::DeserializeOwned;

use super::{
    explain::{explain, unknown_key_of},
    file::{File, Included},
    problem::{Place, Problem, Problems},
    source::Source,
    yaml::{self, Document, Spans, Step, Value},
};

/// Larger configuration files are refused; lists have a limit of their own.
const MAX_FILE: u64 = 64 << 20;
/// Files that include files that include files … : how far.
const MAX_DEPTH: usize = 8;
/// Included files in all.
const MAX_FILES: usize = 1000;
/// More problems than this in one file help nobody.
const MAX_PROBLEMS: usize = 20;

/// The sections that an included file cannot have.
const MAIN_ONLY: [&str; 21] = [
    "workers",
    "listen",
    "pools",
    "zones",
    "scrubbing",
    "signals",
    "acl",
    "opcodes",
    "sanity",
    "kernel",
    "udp",
    "tcp",
    "control",
    "metrics",
    "dnstap",
    "response",
    "incidents",
    "routes",
    "notify",
    "state",
    "log",
];

/// A configuration as written, with its includes merged into it.
pub(super) struct Loaded {
    /// The whole.
    pub(super) file: File,
    /// Where its parts come from.
    pub(super) places: Places,
}

/// Where the parts of a merged configuration were written.
pub(super) struct Places {
    documents: Vec<Written>,
    /// By number of the rule: the file and the rule's number there.
    rules: Vec<(usize, usize)>,
    lists: BTreeMap<String, usize>,
    blocklists: Vec<(usize, usize)>,
}

struct Written {
    spans: Spans,
    /// What relative paths in this file are relative to.
    folder: PathBuf,
}

impl Places {
    /// The place of a setting, given as a path in the merged configuration. The key is pointed at
    /// where the setting is a map or a list, and the nearest that exists where it is not written.
    pub(super) fn place(&self, path: &str) -> Place {
        let (spans, path) = self.locate(path);
        spans.place(spans.find(&path))
    }

    /// The place of a setting's name.
    pub(super) fn key_place(&self, path: &str) -> Place {
        let (spans, path) = self.locate(path);
        spans.key_place(spans.find(&path))
    }

    /// A file named in the setting at `path`, made relative to the file it is written in.
    pub(super) fn resolve(&self, path: &str, name: &OsStr) -> PathBuf {
        let (document, _) = self.split(path);
        let folder = self.documents.get(document).map(|it| it.folder.as_path());
        join(folder.unwrap_or(Path::new("")), name)
    }

    fn locate(&self, path: &str) -> (&Spans, String) {
        let (document, path) = self.split(path);
        // There is always a first document.
        let written = self.documents.get(document).unwrap_or(&self.documents[0]);
        (&written.spans, path)
    }

    /// The number of the document a path lies in, and the path there.
    fn split(&self, path: &str) -> (usize, String) {
        for (prefix, origins) in [
            ("rules[", &self.rules),
            ("blocklist.files[", &self.blocklists),
        ] {
            if let Some(rest) = path.strip_prefix(prefix)
                && let Some((index, rest)) = rest.split_once(']')
                && let Ok(index) = index.parse::<usize>()
                && let Some((document, local)) = origins.get(index)
            {
                return (*document, format!("{prefix}{local}]{rest}"));
            }
        }
        if let Some(rest) = path.strip_prefix("lists.") {
            let document = self
                .lists
                .iter()
                .filter(|(name, _)| {
                    rest.strip_prefix(name.as_str())
                        .is_some_and(|rest| rest.is_empty() || rest.starts_with(['.', '[']))
                })
                .max_by_key(|(name, _)| name.len());
            if let Some((_, document)) = document {
                return (*document, path.to_owned());
            }
        }
        (0, path.to_owned())
    }
}

/// Reads a configuration.
///
/// # Errors
/// Everything that is wrong with its form: syntax, unknown keys, values of the wrong type, files
/// that cannot be read.
pub(super) fn load(path: &Path, source: &dyn Source) -> Result<Loaded, Problems> {
    let name = path.display().to_string();
    let octets = source
        .read(path, MAX_FILE)
        .map_err(|error| unreadable(Place::file(&name), "", "the configuration", path, &error))?;
    let document = yaml::parse(&name, &octets).map_err(Problems)?;
    let mut problems = Vec::new();
    let Document { value, spans } = document;
    let file = decode::<File>(value, &spans, &mut problems);
    let places = Places {
        documents: vec![Written {
            spans,
            folder: folder_of(path),
        }],
        rules: (0..file.rules.len()).map(|index| (0, index)).collect(),
        lists: file.lists.keys().map(|name| (name.clone(), 0)).collect(),
        blocklists: (0..file.blocklist.files.len())
            .map(|index| (0, index))
            .collect(),
    };
    let mut reader = Reader {
        source,
        loaded: Loaded { file, places },
        problems,
        included: BTreeMap::from([(normal(path), None)]),
    };
    let include = reader.loaded.file.include.clone();
    reader.include(0, &include, &mut vec![normal(path)]);
    if reader.problems.is_empty() {
        Ok(reader.loaded)
    } else {
        Err(Problems::in_order(reader.problems))
    }
}

struct Reader<'a> {
    source: &'a dyn Source,
    loaded: Loaded,
    problems: Vec<Problem>,
    /// Every file that was read, and where it was asked for.
    included: BTreeMap<PathBuf, Option<Place>>,
}

impl Reader<'_> {
    /// Reads the files that the document of that number includes. `stack` holds the files that are
    /// being read, outermost first.
    fn include(&mut self, document: usize, include: &[String], stack: &mut Vec<PathBuf>) {
        for (index, name) in include.iter().enumerate() {
            let setting = format!("include[{index}]");
            let Some(written) = self.loaded.places.documents.get(document) else {
                return;
            };
            let path = join(&written.folder, name.as_ref());
            let place = written.spans.place(written.spans.find(&setting));
            if let Err(problem) = self.may_include(&path, &place, &setting, stack) {
                self.problems.push(*problem);
                continue;
            }
            self.included.insert(normal(&path), Some(place.clone()));
            let octets = match self.source.read(&path, MAX_FILE) {
                Ok(octets) => octets,
                Err(error) => {
                    let problem = unreadable(place, &setting, "the included file", &path, &error);
                    self.problems.push(problem);
                    continue;
                }
            };
            match yaml::parse(&path.display().to_string(), &octets) {
                Ok(document) => {
                    stack.push(normal(&path));
                    self.merge(document, &path, stack);
                    stack.pop();
                }
                Err(problems) => self.problems.extend(problems),
            }
        }
    }

    fn may_include(
        &self,
        path: &Path,
        place: &Place,
        setting: &str,
        stack: &[PathBuf],
    ) -> Result<(), Box<Problem>> {
        let normal = normal(path);
        let shown = path.display();
        let refuse = |message: String| Problem::new(place.clone(), setting, message);
        if let Some(at) = stack.iter().position(|it| *it == normal) {
            let way: Vec<String> = stack
                .iter()
                .skip(at)
                .chain([&normal])
                .map(|it| it.display().to_string())
                .collect();
            return Err(Box::new(
                refuse(format!("`{shown}` includes itself"))
                    .with_found(way.join(" → "))
                    .with_help("remove one of these includes"),
            ));
        }
        if let Some(first) = self.included.get(&normal) {
            let mut problem = refuse(format!("`{shown}` is included twice"));
            if let Some(first) = first {
                problem = problem.with_related(first.clone(), "it is included here first");
            }
            return Err(Box::new(problem.with_help("remove one of the two")));
        }
        if stack.len() > MAX_DEPTH {
            return Err(Box::new(refuse(format!(
                "files include each other more than {MAX_DEPTH} deep"
            ))));
        }
        if self.included.len() > MAX_FILES {
            return Err(Box::new(refuse(format!("more than {MAX_FILES} files"))));
        }
        Ok(())
    }

    /// Adds what an included file says.
    fn merge(&mut self, document: Document, path: &Path, stack: &mut Vec<PathBuf>) {
        let Document { value, spans } = document;
        let before = self.problems.len();
        let included = decode::<Included>(value, &spans, &mut self.problems);
        for problem in self.problems.iter_mut().skip(before) {
            if MAIN_ONLY.contains(&problem.path.as_str()) {
                problem.suggestion = None;
                problem.help = Some(format!("`{}` belongs into the main file", problem.path));
            }
        }
        let number = self.loaded.places.documents.len();
        let (file, places) = (&mut self.loaded.file, &mut self.loaded.places);
        places
            .rules
            .extend((0..included.rules.len()).map(|index| (number, index)));
        file.rules.extend(included.rules);
        places
            .blocklists
            .extend((0..included.blocklist.files.len()).map(|index| (number, index)));
        file.blocklist.files.extend(included.blocklist.files);
        for (name, list) in included.lists {
            if places.lists.contains_key(&name) {
                let setting = format!("lists.{name}");
                self.problems.push(
                    Problem::new(
                        spans.key_place(spans.find(&setting)),
                        &setting,
                        format!("there are two lists named `{name}`"),
                    )
                    .with_related(places.key_place(&setting), "it is defined here first")
                    .with_help("give one of them another name"),
                );
                continue;
            }
            places.lists.insert(name.clone(), number);
            file.lists.insert(name, list);
        }
        places.documents.push(Written {
            spans,
            folder: folder_of(path),
        });
        self.include(number, &included.include, stack);
    }
}

/// Turns a value into a type, and goes on after an error by leaving out the part that is wrong, so
/// that several errors are found at once.
fn decode<T: DeserializeOwned + Default>(
    mut value: Value,
    spans: &Spans,
    problems: &mut Vec<Problem>,
) -> T {
    if value.is_null() {
        return T::default();
    }
    let mut changes = Changes::default();
    for _ in 0..MAX_PROBLEMS {
        let refusal = match yaml::decode::<T>(value.clone()) {
            Ok(decoded) => return decoded,
            Err(refusal) => refusal,
        };
        let problem = explain(&refusal, &changes.as_written(&refusal.path), spans);
        let suggestion = problem.suggestion.clone();
        problems.push(problem);
        let changed = match unknown_key_of(&refusal.message) {
            Some(key) => changes.key(&mut value, &refusal.path, key, suggestion.as_deref()),
            None => changes.leave_out(&mut value, &refusal.path),
        };
        if !changed {
            break;
        }
    }
    T::default()
}

/// What was changed about a file's values to find further errors, so that paths in the changed
/// values can be told as they are written.
#[derive(Default)]
struct Changes {
    /// Items that were left out: the section they were in, and their index there as written.
    left_out: Vec<(String, usize)>,
    /// Keys that were corrected: the map they are in, as written, the corrected key, the one written.
    renamed: Vec<(Vec<Step>, String, String)>,
}

impl Changes {
    /// Gives an unknown key its most likely name, or leaves it out.
    fn key(&mut self, value: &mut Value, path: &[Step], key: &str, name: Option<&str>) -> bool {
        // The path may or may not end in the unknown key itself.
        let parent = match path {
            [parent @ .., Step::Key(last)] if last == key => parent,
            _ => path,
        };
        if let Some(name) = name
            && yaml::rename(value, parent, key, name)
        {
            let change = (self.as_written(parent), name.to_owned(), key.to_owned());
            self.renamed.push(change);
            return true;
        }
        let mut path = parent.to_vec();
        path.push(Step::Key(key.to_owned()));
        yaml::remove(value, &path)
    }

    /// Leaves out the part of the configuration that a path leads into.
    fn leave_out(&mut self, value: &mut Value, path: &[Step]) -> bool {
        let part = part_of(path);
        if let ([Step::Key(section), Step::Index(_)], [_, Step::Index(index), ..]) =
            (part.as_slice(), self.as_written(path).as_slice())
        {
            self.left_out.push((section.clone(), *index));
            self.left_out.sort();
        }
        !part.is_empty() && yaml::remove(value, &part)
    }

    /// A path in the file as it is written.
    fn as_written(&self, path: &[Step]) -> Vec<Step> {
        let mut path = path.to_vec();
        if let [Step::Key(section), Step::Index(index), ..] = path.as_mut_slice() {
            for (of, out) in &self.left_out {
                if of == section && *out <= *index {
                    *index += 1;
                }
            }
        }
        for at in 0..path.len() {
            let (parent, rest) = path.split_at_mut(at);
            let change = self.renamed.iter().find(|(map, name, _)| {
                map == parent && rest.first() == Some(&Step::Key(name.clone()))
            });
            if let (Some((_, _, written)), Some(step)) = (change, rest.first_mut()) {
                *step = Step::Key(written.clone());
            }
        }
        path
    }
}

/// The part of the configuration that is left out for an error: an item of a list or an entry of a
/// map of named things, else the section.
fn part_of(path: &[Step]) -> Vec<Step> {
    let depth = match path {
        [Step::Key(section), Step::Key(_), ..] if section == "pools" || section == "lists" => 2,
        [Step::Key(_), Step::Index(_), ..] => 2,
        _ => 1,
    };
    path.iter().take(depth).cloned().collect()
}

/// A file that cannot be read, in words.
pub(super) fn unreadable(
    place: Place,
    setting: &str,
    what: &str,
    path: &Path,
    error: &io::Error,
) -> Problem {
    let path = path.display();
    let (message, help) = match error.kind() {
        io::ErrorKind::NotFound => (
            format!("{what} `{path}` does not exist"),
            "check the name; relative ones start from the folder of the file they stand in",
        ),
        io::ErrorKind::PermissionDenied => (
            format!("{what} `{path}` may not be read"),
            "let the user that dnscrub runs as read it",
        ),
        io::ErrorKind::IsADirectory => (format!("{what} `{path}` is a folder"), "name a file"),
        io::ErrorKind::FileTooLarge => (format!("{what} `{path}` is too large"), "split it"),
        _ => (
            format!("{what} `{path}` cannot be read: {error}"),
            "check the file and its disk",
        ),
    };
    Problem::new(place, setting, message).with_help(help)
}

fn folder_of(path: &Path) -> PathBuf {
    path.parent().map_or_else(PathBuf::new, Path::to_path_buf)
}

fn join(folder: &Path, name: &OsStr) -> PathBuf {
    let name = Path::new(name);
    folder.join(name.strip_prefix(".").unwrap_or(name))
}

/// The same file under one name, as far as that can be told without asking the file system.
fn normal(path: &Path) -> PathBuf {
    let mut normal = PathBuf::new();
    for part in path.components() {
        match part {
            Component::CurDir => {}
            Component::ParentDir
                if matches!(normal.components().next_back(), Some(Component::Normal(_))) =>
            {
                normal.pop();
            }
            part => normal.push(part),
        }
    }
    normal
}
