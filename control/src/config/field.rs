//! How a value gets into its field of the configuration, and back out as TOML.

use super::timeout_policy;
use super::value::Value;
use super::{
    Auto, Cores, Full, HostNames, Idle, Irqs, L2Pass, Listen, LogLevel, Offloads, Rebalance, Rss, Seccomp,
    Tracking, XdpMode,
};
use dataplane::flow::TimeoutPolicy;
use std::path::PathBuf;

/// A field of the configuration that a setting fills.
pub(super) trait Field {
    /// Takes a value of the setting's kind.
    fn put(&mut self, value: Value);

    /// The value as TOML; `None` if there is none, which TOML cannot say.
    fn show(&self) -> Option<String>;
}

/// Kind and field type are paired in one place, [`super::settings`]; a test walks every pair.
fn mispaired(value: &Value) -> ! {
    unreachable!("the kind of a setting does not fit its field: {value:?}")
}

/// A TOML string.
fn quote(text: &str) -> String {
    toml::Value::String(text.to_owned()).to_string()
}

impl Field for bool {
    fn put(&mut self, value: Value) {
        match value {
            Value::Switch(on) => *self = on,
            other => mispaired(&other),
        }
    }

    fn show(&self) -> Option<String> {
        Some(self.to_string())
    }
}

impl Field for u32 {
    fn put(&mut self, value: Value) {
        match value {
            Value::Int(number) => *self = number,
            other => mispaired(&other),
        }
    }

    fn show(&self) -> Option<String> {
        Some(self.to_string())
    }
}

/// `None` is `"auto"`.
impl<T: TryFrom<u32> + ToString> Field for Option<T> {
    fn put(&mut self, value: Value) {
        *self = match value {
            Value::Auto => None,
            Value::Int(number) => T::try_from(number).ok(),
            other => mispaired(&other),
        }
    }

    fn show(&self) -> Option<String> {
        Some(self.as_ref().map_or_else(|| quote("auto"), T::to_string))
    }
}

impl Field for String {
    fn put(&mut self, value: Value) {
        match value {
            Value::Text(text) => *self = text,
            other => mispaired(&other),
        }
    }

    fn show(&self) -> Option<String> {
        (!self.is_empty()).then(|| quote(self))
    }
}

impl Field for Listen {
    fn put(&mut self, value: Value) {
        match value {
            Value::Listen(listen) => *self = listen,
            other => mispaired(&other),
        }
    }

    fn show(&self) -> Option<String> {
        Some(quote(&self.to_string()))
    }
}

impl Field for HostNames {
    fn put(&mut self, value: Value) {
        match value {
            Value::HostNames(names) => *self = names,
            other => mispaired(&other),
        }
    }

    fn show(&self) -> Option<String> {
        let items: Vec<String> = self.0.iter().map(|name| quote(name)).collect();
        Some(format!("[{}]", items.join(", ")))
    }
}

impl Field for PathBuf {
    fn put(&mut self, value: Value) {
        match value {
            Value::Text(text) => *self = text.into(),
            other => mispaired(&other),
        }
    }

    fn show(&self) -> Option<String> {
        Some(quote(&self.to_string_lossy()))
    }
}

/// A text that may be missing. A type of its own because `None` of a number means `"auto"`.
pub(super) struct Missing<'a, T>(pub(super) &'a mut Option<T>);

impl<T: From<String>> Missing<'_, T> {
    pub(super) fn put(self, value: Value) {
        match value {
            Value::Text(text) => *self.0 = Some(text.into()),
            other => mispaired(&other),
        }
    }
}

impl Field for Cores {
    fn put(&mut self, value: Value) {
        match value {
            Value::Cores(cores) => *self = cores,
            other => mispaired(&other),
        }
    }

    fn show(&self) -> Option<String> {
        Some(match self {
            Self::Auto => quote("auto"),
            Self::Count(count) => count.to_string(),
            Self::List(cores) => format!("{cores:?}"),
        })
    }
}

impl Field for L2Pass {
    fn put(&mut self, value: Value) {
        match value {
            Value::EtherTypes(pass) => *self = pass,
            other => mispaired(&other),
        }
    }

    fn show(&self) -> Option<String> {
        Some(match self {
            Self::All => quote("all"),
            Self::Only { ethertypes, llc } => {
                let numbers = ethertypes.iter().map(|number| format!("\"{number:#06x}\""));
                let items: Vec<String> = numbers.chain(llc.then(|| quote("llc"))).collect();
                format!("[{}]", items.join(", "))
            }
        })
    }
}

impl Field for Vec<TimeoutPolicy> {
    fn put(&mut self, value: Value) {
        match value {
            Value::TimeoutPolicies(policies) => *self = policies,
            other => mispaired(&other),
        }
    }

    fn show(&self) -> Option<String> {
        let items: Vec<String> = self.iter().map(|policy| quote(&timeout_policy::print(policy))).collect();
        Some(format!("[{}]", items.join(", ")))
    }
}

macro_rules! word_fields {
    ($($name:ident),+) => {
        $(impl Field for $name {
            fn put(&mut self, value: Value) {
                let Value::Word(word) = value else { mispaired(&value) };
                match Self::WORDS.iter().find(|(known, _)| *known == word) {
                    Some((_, meaning)) => *self = *meaning,
                    None => mispaired(&value),
                }
            }

            fn show(&self) -> Option<String> {
                Some(quote(self.word()))
            }
        }

        impl $name {
            pub(super) fn words() -> Vec<&'static str> {
                Self::WORDS.iter().map(|(word, _)| *word).collect()
            }
        })+
    };
}

word_fields!(Auto, Full, Idle, Irqs, LogLevel, Offloads, Rebalance, Rss, Seccomp, Tracking, XdpMode);
