//! One setting as the loader, the checker and the reference page see it, and the macro that declares a section.

use super::value::Value;

/// A setting in place: what it is called, what it means, and the value to read or to change.
pub(super) struct Setting<'a> {
    /// `section.key`.
    pub(super) key: &'static str,
    /// The field's documentation, as written.
    pub(super) doc: &'static str,
    pub(super) limits: Option<Limits>,
    pub(super) value: &'a mut dyn Value,
}

/// The closed range that a value must lie in.
pub(super) struct Limits {
    pub(super) lowest: String,
    pub(super) highest: String,
    /// Whether the present value does.
    pub(super) kept: bool,
}

impl Limits {
    pub(super) fn of<T: Value + PartialOrd>(value: &T, lowest: &T, highest: &T) -> Self {
        Self {
            lowest: lowest.show().unwrap_or_default(),
            highest: highest.show().unwrap_or_default(),
            // What is not set keeps every limit.
            kept: value.show().is_none() || (value >= lowest && value <= highest),
        }
    }
}

/// Declares a section: its struct with documented public fields, their defaults, and its list of settings.
///
/// `field: Type = default;` or, with a closed range, `field: Type = default, in lowest => highest;`.
macro_rules! section {
    (
        $(#[doc = $about:literal])+
        $name:ident [$section:literal] {
            $( $(#[doc = $doc:literal])+ $field:ident: $type:ty = $default:expr $(, in $low:expr => $high:expr)?; )+
        }
    ) => {
        $(#[doc = $about])+
        #[derive(Debug, Clone, PartialEq)]
        pub struct $name {
            $( $(#[doc = $doc])+ pub $field: $type, )+
        }

        impl Default for $name {
            fn default() -> Self {
                Self { $( $field: $default, )+ }
            }
        }

        impl $name {
            pub(super) const NAME: &'static str = $section;
            pub(super) const ABOUT: &'static str = concat!($($about, "\n"),+);

            pub(super) fn settings(&mut self) -> Vec<$crate::config::section::Setting<'_>> {
                vec![$(
                    $crate::config::section::Setting {
                        key: concat!($section, ".", stringify!($field)),
                        doc: concat!($($doc, "\n"),+),
                        limits: $crate::config::section::limits!(self.$field $(, $low => $high)?),
                        value: &mut self.$field,
                    }
                ),+]
            }
        }
    };
}

macro_rules! limits {
    ($field:expr) => {
        None
    };
    ($field:expr, $low:expr => $high:expr) => {
        Some($crate::config::section::Limits::of(&$field, &$low, &$high))
    };
}

pub(super) use {limits, section};
