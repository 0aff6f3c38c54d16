//! Where a range of names is best cut in two, learned from the names seen so far. Pure.
//!
//! Names are read as numbers of mixed radix: the letters that were seen at a place, widened to the class that they belong to
//! (digits, hexadecimal digits, letters), are the digits of that place. Between two numbers names are taken to lie evenly.
//! A bad guess costs a request or two, never a name: cuts only decide who asks for which names.

/// Names are numbers below 2^100, so that their differences are exact and their quotients good to 50 bits.
const NUMBERS_MAX: u128 = 1 << 100;
/// Places of a name that are looked at; a radix product of 2^100 needs far fewer of them.
const PLACES_MAX: usize = 255;

/// The letters seen at one place of the names.
#[derive(Clone, Debug, Default)]
struct Place {
    seen: [u64; 4],
    /// Some name ended before this place.
    ends: bool,
}

/// What the names are made of.
#[derive(Clone, Debug, Default)]
pub(super) struct NameModel {
    places: Vec<Place>,
    shortest: Option<usize>,
}

/// The digits of the places, from the first on.
#[derive(Debug)]
pub(super) struct Scale(Vec<Digits>);

#[derive(Debug)]
struct Digits {
    letters: Vec<u8>,
    ends: bool,
    /// What one step at this place is worth.
    weight: u128,
}

impl NameModel {
    /// Learns a name.
    pub(super) fn learn(&mut self, name: &str) {
        let bytes = &name.as_bytes()[..name.len().min(PLACES_MAX)];
        while self.places.len() < bytes.len() {
            // Every name so far ended before this place, or there was none.
            let ends = self.shortest.is_some();
            self.places.push(Place { ends, ..Place::default() });
        }
        for (place, &byte) in self.places.iter_mut().zip(bytes) {
            place.seen[usize::from(byte >> 6)] |= 1 << (byte & 63);
        }
        if let Some(place) = self.places.get_mut(bytes.len()) {
            place.ends = true;
        }
        self.shortest = Some(self.shortest.map_or(bytes.len(), |shortest| shortest.min(bytes.len())));
    }

    /// The numbers that names stand for now.
    pub(super) fn scale(&self) -> Scale {
        let letters: Vec<Vec<u8>> = self.places.iter().map(Place::letters).collect();
        // One place with digits and letters up to f makes all of them hexadecimal.
        let is_hexadecimal = |set: &Vec<u8>| set.iter().all(|byte| matches!(byte, b'0'..=b'9' | b'a'..=b'f'));
        let mixed = |set: &&Vec<u8>| is_hexadecimal(set) && set.iter().any(u8::is_ascii_digit) && set.len() > 1;
        let hexadecimal = letters.iter().filter(mixed).any(|set| set.iter().any(u8::is_ascii_lowercase));
        let mut digits = Vec::new();
        let mut product: u128 = 1;
        for (place, seen) in self.places.iter().zip(letters) {
            let letters =
                if hexadecimal && is_hexadecimal(&seen) { b"0123456789abcdef".to_vec() } else { widened(seen) };
            let radix = (letters.len() + usize::from(place.ends)).max(1) as u128;
            if product * radix >= NUMBERS_MAX {
                break;
            }
            product *= radix;
            digits.push(Digits { letters, ends: place.ends, weight: radix });
        }
        let mut weight = 1;
        for digit in digits.iter_mut().rev() {
            let radix = std::mem::replace(&mut digit.weight, weight);
            weight *= radix;
        }
        Scale(digits)
    }
}

impl Place {
    fn letters(&self) -> Vec<u8> {
        (0..=u8::MAX).filter(|byte| self.seen[usize::from(byte >> 6)] & (1 << (byte & 63)) != 0).collect()
    }
}

/// The class that letters belong to. A single letter that is no digit is a constant until another is seen.
fn widened(seen: Vec<u8>) -> Vec<u8> {
    let all = |is: fn(&u8) -> bool| seen.iter().all(is);
    if all(u8::is_ascii_digit) {
        (b'0'..=b'9').collect()
    } else if seen.len() > 1 && all(u8::is_ascii_lowercase) {
        (b'a'..=b'z').collect()
    } else if seen.len() > 1 && all(u8::is_ascii_uppercase) {
        (b'A'..=b'Z').collect()
    } else {
        seen
    }
}

impl Scale {
    /// The number of a name: that of the greatest name of the scale that is not behind it, about.
    pub(super) fn number(&self, name: &str) -> u128 {
        let mut number = 0;
        for (digits, byte) in self.0.iter().zip(name.bytes()) {
            let rank = digits.letters.partition_point(|&letter| letter < byte);
            number += (rank + usize::from(digits.ends)) as u128 * digits.weight;
            if digits.letters.get(rank) != Some(&byte) {
                break;
            }
        }
        number.min(self.largest())
    }

    /// The largest number.
    pub(super) fn largest(&self) -> u128 {
        self.0
            .iter()
            .map(|digits| ((digits.letters.len() + usize::from(digits.ends)).max(1) - 1) as u128 * digits.weight)
            .sum()
    }

    /// The name of a number; what would not be UTF-8 is left out at its end.
    pub(super) fn name(&self, number: u128) -> String {
        let mut bytes = Vec::with_capacity(self.0.len());
        let mut rest = number;
        for digits in &self.0 {
            let rank = usize::try_from(rest / digits.weight).unwrap_or(usize::MAX);
            rest %= digits.weight;
            match rank.checked_sub(usize::from(digits.ends)) {
                None => break,
                Some(at) => match digits.letters.get(at) {
                    Some(&letter) => bytes.push(letter),
                    None => break,
                },
            }
        }
        match String::from_utf8(bytes) {
            Ok(name) => name,
            Err(error) => {
                let valid = error.utf8_error().valid_up_to();
                String::from_utf8_lossy(&error.as_bytes()[..valid]).into_owned()
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    fn scale_of<'a>(names: impl IntoIterator<Item = &'a str>) -> Scale {
        let mut model = NameModel::default();
        names.into_iter().for_each(|name| model.learn(name));
        model.scale()
    }

    #[test]
    fn numbered_names_are_counted_on() {
        let names: Vec<String> = (0..1000).map(|n| format!("part-{n:05}.csv")).collect();
        let scale = scale_of(names.iter().map(String::as_str));
        let step = scale.number(&names[999]) - scale.number(&names[0]);
        assert_eq!(scale.name(scale.number(&names[999]) + step + scale.number(&names[1])), "part-01999.csv");
        assert_eq!(scale.name(scale.largest()), "part-99999.csv");
    }

    #[test]
    fn hashes_fill_all_of_hexadecimal() {
        let scale = scale_of(["00f3", "01a9", "0bc2"]);
        assert_eq!(scale.name(scale.largest() / 2), "7fff");
    }

    #[test]
    fn shorter_names_come_first() {
        let scale = scale_of(["file1", "file10", "file100", "file2"]);
        assert!(scale.number("file1") < scale.number("file10") && scale.number("file10") < scale.number("file2"));
    }

    proptest! {
        #[test]
        fn numbers_are_in_the_order_of_names(mut names in prop::collection::vec("\\PC{1,12}", 2..40)) {
            names.sort();
            let scale = scale_of(names.iter().map(String::as_str));
            let numbers: Vec<u128> = names.iter().map(|name| scale.number(name)).collect();
            prop_assert!(numbers.is_sorted(), "{:?} {:?}", names, numbers);
        }

        #[test]
        fn every_number_is_the_name_of_something(names in prop::collection::vec("\\PC{1,12}", 1..20), share in 0..=100_u128) {
            let scale = scale_of(names.iter().map(String::as_str));
            let name = scale.name(scale.largest() * share / 100);
            prop_assert!(!name.contains('/') || names.iter().any(|name| name.contains('/')));
        }
    }
}
