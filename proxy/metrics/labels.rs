//! Enums whose values are label values.

/// Declares an enum with the word that each value has as a label, and a list of all.
macro_rules! labels {
    ($(#[$doc:meta])* $name:ident { $($(#[$value_doc:meta])* $value:ident = $word:literal,)+ }) => {
        $(#[$doc])*
        #[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
        pub enum $name {
            $($(#[$value_doc])* $value,)+
        }

        impl $name {
            /// All values, in the order of their numbers.
            pub const ALL: [$name; [$($word),+].len()] = [$($name::$value),+];

            /// The value as a label.
            pub fn label(self) -> &'static str {
                match self {
                    $($name::$value => $word,)+
                }
            }
        }
    };
}

pub(super) use labels;
