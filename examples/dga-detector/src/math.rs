//! Exponential and logarithm in plain IEEE arithmetic. The platform's `exp` and `log` differ in
//! the last bit between C libraries, and training must give the same bytes everywhere.

use std::f64::consts::LN_2;

/// `e^x`, exact to about 1e-15; arguments beyond ±700 are clamped.
#[must_use]
pub fn exp(x: f64) -> f64 {
    let x = x.clamp(-700.0, 700.0);
    let k = (x / LN_2).round();
    let r = x - k * LN_2;
    // Horner form of the series; |r| <= 0.35, so term 14 is below 1e-17.
    let mut sum = 1.0;
    for n in (1..=14).rev() {
        sum = 1.0 + sum * r / f64::from(n);
    }
    sum * power_of_two(k)
}

/// `2^k` for a whole `k` between -1022 and 1023.
#[allow(
    clippy::cast_possible_truncation,
    clippy::cast_sign_loss,
    reason = "k is clamped to the exponents a double has"
)]
fn power_of_two(k: f64) -> f64 {
    f64::from_bits(((k.clamp(-1022.0, 1023.0) + 1023.0) as u64) << 52)
}

/// `1 / (1 + e^-x)`.
#[must_use]
pub fn sigmoid(x: f64) -> f64 {
    1.0 / (1.0 + exp(-x))
}

/// `log2(n)` by repeated squaring, exact to about 1e-9; 0 for `n = 0`.
#[must_use]
pub fn log2(n: u32) -> f64 {
    if n == 0 {
        return 0.0;
    }
    let whole = n.ilog2();
    let mut mantissa = f64::from(n) / f64::from(1_u32 << whole);
    let mut result = f64::from(whole);
    let mut bit = 0.5;
    for _ in 0..30 {
        mantissa *= mantissa;
        if mantissa >= 2.0 {
            mantissa /= 2.0;
            result += bit;
        }
        bit /= 2.0;
    }
    result
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn agrees_with_the_platform() {
        for i in -200..=200 {
            let x = f64::from(i) / 7.0;
            assert!((exp(x) / x.exp() - 1.0).abs() < 1e-13, "exp({x})");
        }
        for n in 1..5000 {
            assert!((log2(n) - f64::from(n).log2()).abs() < 1e-8, "log2({n})");
        }
    }

    #[test]
    fn sigmoid_stays_in_its_range() {
        assert!(sigmoid(-1e9) >= 0.0 && sigmoid(1e9) <= 1.0);
        assert!((sigmoid(0.0) - 0.5).abs() < 1e-15);
    }
}
