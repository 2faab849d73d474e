//! Figures beside their goals, one line each.

/// What has been measured so far.
#[derive(Debug, Default)]
pub struct Report {
    missed: u32,
}

impl Report {
    /// A figure that must be at least `goal`.
    pub fn at_least(&mut self, name: &str, measured: f64, goal: f64) {
        self.line(name, &format!("{measured:.3}"), &format!(">= {goal}"), measured >= goal);
    }

    /// A figure that must be at most `goal`.
    pub fn at_most(&mut self, name: &str, measured: f64, goal: f64) {
        self.line(name, &format!("{measured:.3}"), &format!("<= {goal}"), measured <= goal);
    }

    /// A figure without a goal of its own, for reading beside others.
    pub fn beside(&self, name: &str, measured: &str) {
        println!("{name}: {measured}");
    }

    /// A count that must be exactly `goal`.
    pub fn exactly(&mut self, name: &str, measured: i128, goal: i128) {
        self.line(name, &measured.to_string(), &goal.to_string(), measured == goal);
    }

    /// A figure that could not be measured, which is not a figure that is met.
    pub fn unmeasured(&mut self, name: &str, goal: &str, reason: &str) {
        self.line(name, &format!("not measured ({reason})"), goal, false);
    }

    /// How many figures missed their goal.
    #[must_use]
    pub fn missed(&self) -> u32 {
        self.missed
    }

    fn line(&mut self, name: &str, measured: &str, goal: &str, is_met: bool) {
        self.missed += u32::from(!is_met);
        println!("{name}: {measured}, goal {goal}: {}", if is_met { "met" } else { "NOT MET" });
    }
}

/// The middle of `values`, the lower one of two.
#[must_use]
pub fn median(values: &[f64]) -> f64 {
    let mut sorted = values.to_vec();
    sorted.sort_by(f64::total_cmp);
    sorted.get(sorted.len().saturating_sub(1) / 2).copied().unwrap_or(f64::NAN)
}

/// Smallest and largest of `values`.
#[must_use]
pub fn range(values: &[f64]) -> (f64, f64) {
    values
        .iter()
        .fold((f64::INFINITY, f64::NEG_INFINITY), |(low, high), value| (low.min(*value), high.max(*value)))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_median_of_an_even_number_is_the_lower_middle() {
        assert_eq!(median(&[4.0, 1.0, 3.0, 2.0]).to_bits(), 2.0_f64.to_bits());
        assert_eq!(median(&[5.0]).to_bits(), 5.0_f64.to_bits());
        assert!(median(&[]).is_nan());
    }
}
