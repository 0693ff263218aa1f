//! Structures of counters with their names.

/// Makes a structure of counters that are 0 at first, and a method that gives them with their names.
macro_rules! counters {
    ($(#[$of:meta])* $type:ident $($(#[$doc:meta])* $name:ident,)*) => {
        $(#[$of])*
        #[derive(Clone, Debug, Default, PartialEq, Eq, serde::Serialize, serde::Deserialize)]
        #[serde(default)]
        pub struct $type { $($(#[$doc])* pub $name: u64,)* }

        impl $type {
            /// All, with their names.
            #[must_use]
            pub fn all(&self) -> Vec<(&'static str, u64)> {
                vec![$((stringify!($name), self.$name)),*]
            }
        }
    };
}

pub(crate) use counters;
