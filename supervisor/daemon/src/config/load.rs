//! Files to one checked [`Config`].

use std::collections::BTreeMap;
use std::fmt;
use std::io;
use std::path::{Path, PathBuf};

use toml::{Table, Value};

use super::{Config, check};
use bumpless_os::durable::parent;

/// Why there is no configuration. Names the file, and the key where there is one.
#[derive(Debug)]
pub enum ConfigError {
    /// A file or `config.d` cannot be read.
    Read {
        /// Which.
        file: PathBuf,
        /// Why.
        source: io::Error,
    },
    /// In `config.d` there is something that is not a `.toml` file.
    UnknownFile {
        /// What.
        file: PathBuf,
    },
    /// Not TOML, an unknown key, a value that its key does not take.
    Text {
        /// In which file.
        file: PathBuf,
        /// On which line, from 1.
        line: usize,
        /// The line.
        text: String,
        /// What is wrong and what is allowed.
        message: String,
    },
    /// A value out of its limits, or against another one.
    Value {
        /// The file that set it last; the main file where none did.
        file: PathBuf,
        /// Its key, with the section in front.
        key: &'static str,
        /// What is wrong and what is allowed.
        message: String,
    },
}

impl fmt::Display for ConfigError {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            ConfigError::Read { file, source } => {
                write!(f, "cannot read the configuration {}: {source}", file.display())
            }
            ConfigError::UnknownFile { file } => write!(
                f,
                "{}: not a configuration file; files here end in .toml. Move it elsewhere or rename it",
                file.display()
            ),
            ConfigError::Text { file, line, text, message } => {
                write!(f, "{}, line {line}: {text}: {message}", file.display())
            }
            ConfigError::Value { file, key, message } => write!(f, "{}: {key}: {message}", file.display()),
        }
    }
}

impl std::error::Error for ConfigError {
    fn source(&self) -> Option<&(dyn std::error::Error + 'static)> {
        match self {
            ConfigError::Read { source, .. } => Some(source),
            ConfigError::UnknownFile { .. } | ConfigError::Text { .. } | ConfigError::Value { .. } => None,
        }
    }
}

impl Config {
    /// Reads `path`, then the files of `config.d` beside it in the order of their names, each over the
    /// ones before. `config.d` need not exist.
    ///
    /// # Errors
    /// The first thing that is wrong.
    pub fn load(path: &Path) -> Result<Config, ConfigError> {
        let mut merged = Table::new();
        let mut origins = BTreeMap::new();
        for file in files(path)? {
            let text = std::fs::read_to_string(&file)
                .map_err(|source| ConfigError::Read { file: file.clone(), source })?;
            let wrong = |error: toml::de::Error| text_error(&file, &text, &error);
            // On its own first: an error found in the merged table could not name file and line.
            toml::from_str::<Config>(&text).map_err(wrong)?;
            let table: Table = text.parse().map_err(wrong)?;
            merge(&mut merged, table, "", &file, &mut origins);
        }
        let config: Config = merged.try_into().map_err(|error| text_error(path, "", &error))?;
        check::check(&config).map_err(|wrong| ConfigError::Value {
            file: origins.get(wrong.key).map_or_else(|| path.to_owned(), Clone::clone),
            key: wrong.key,
            message: wrong.text,
        })?;
        Ok(config)
    }
}

fn files(path: &Path) -> Result<Vec<PathBuf>, ConfigError> {
    let dir = parent(path).join("config.d");
    let read = |source| ConfigError::Read { file: dir.clone(), source };
    let mut files = Vec::new();
    match std::fs::read_dir(&dir) {
        Err(error) if error.kind() == io::ErrorKind::NotFound => {}
        Err(error) => return Err(read(error)),
        Ok(entries) => {
            for entry in entries {
                let file = entry.map_err(read)?.path();
                if file.extension().is_none_or(|extension| extension != "toml") || !file.is_file() {
                    return Err(ConfigError::UnknownFile { file });
                }
                files.push(file);
            }
        }
    }
    files.sort();
    files.insert(0, path.to_owned());
    Ok(files)
}

fn merge(into: &mut Table, from: Table, prefix: &str, file: &Path, origins: &mut BTreeMap<String, PathBuf>) {
    for (key, value) in from {
        let full = if prefix.is_empty() { key.clone() } else { format!("{prefix}.{key}") };
        match (into.get_mut(&key), value) {
            (Some(Value::Table(inner)), Value::Table(table)) => merge(inner, table, &full, file, origins),
            (None, Value::Table(table)) => {
                let mut inner = Table::new();
                merge(&mut inner, table, &full, file, origins);
                into.insert(key, Value::Table(inner));
            }
            (Some(_) | None, value) => {
                origins.insert(full, file.to_owned());
                into.insert(key, value);
            }
        }
    }
}

fn text_error(file: &Path, text: &str, error: &toml::de::Error) -> ConfigError {
    let at = error.span().map_or(0, |span| span.start).min(text.len());
    let before = text.get(..at).unwrap_or_default();
    let line = before.matches('\n').count() + 1;
    let shown = text.lines().nth(line - 1).unwrap_or_default().trim();
    // A proxy's address may hold a password, and what is wrong with a file lands in logs.
    let secret = shown.contains('@') || shown.contains("proxy");
    let shown = if secret {
        format!("{}= …", shown.split_once('=').map_or("", |(key, _)| key))
    } else {
        shown.chars().take(80).collect()
    };
    ConfigError::Text { file: file.to_owned(), line, text: shown, message: error.message().to_owned() }
}
