//! Lists as people publish them: read from text, JSON or a schedule file; in any unit; turned into noise levels and back.
use super::{Levels, flow_of, of_flow};
use crate::discretize::Schedule;
use crate::files::{json as json_file, result};
use crate::noise::{Noise, from_spec};
use crate::{Error, Kind, Result};
use serde_json::{Value, json};

/// In what a list is given.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Form {
    /// σ/α; of a flow model its own σ.
    Sigmas,
    /// Indices of training steps, at which the network is asked; an end at σ = 0 is implied.
    Timesteps,
    /// λ = ln α − ln σ, ascending.
    Lambdas,
    /// The noise schedule's own time (of a flow model, before its shift).
    Times,
    /// σ/(α + σ): a flow model's σ, whatever the model.
    Flow,
}

impl Form {
    /// All names.
    pub const NAMES: [&'static str; 5] = ["sigmas", "timesteps", "lambdas", "times", "flow"];
    /// The form of that name.
    pub fn named(name: &str) -> Result<Form> {
        Ok(match name {
            "sigmas" => Form::Sigmas,
            "timesteps" => Form::Timesteps,
            "lambdas" => Form::Lambdas,
            "times" => Form::Times,
            "flow" => Form::Flow,
            _ => return Err(Error::unknown("form of a list", name, Self::NAMES)),
        })
    }
    /// Its name.
    pub fn name(self) -> &'static str {
        match self {
            Form::Sigmas => "sigmas",
            Form::Timesteps => "timesteps",
            Form::Lambdas => "lambdas",
            Form::Times => "times",
            Form::Flow => "flow",
        }
    }
}

/// The noise schedule that a word of the command line means: "sd", "ldm", a schedule's name, or its JSON.
pub fn noise_named(name: &str, shift: Option<f64>) -> Result<Noise> {
    let spec = match name {
        "sd" | "sdxl" => json!({ "name": "vp_discrete", "preset": "sd" }),
        "ldm" => json!({ "name": "vp_discrete", "preset": "ldm" }),
        "edm" | "vp_linear" | "vp_cosine" => json!({ "name": name }),
        "flow" => json!({ "name": "flow", "shift": shift.unwrap_or(1.0) }),
        text if text.trim_start().starts_with('{') => json_file::parse(text)?,
        _ => {
            return Err(Error::unknown(
                "noise schedule",
                name,
                ["sd", "sdxl", "ldm", "edm", "vp_linear", "vp_cosine", "flow"],
            ));
        }
    };
    if shift.is_some() && spec["name"] != "flow" {
        return Err(Error::value("a shift is a flow model's").hint("with --noise flow"));
    }
    from_spec(&spec)
}

/// What a text holds.
pub enum Given {
    /// Numbers.
    Numbers(Vec<f64>),
    /// A saved schedule.
    Saved(Box<Schedule>),
}

/// Reads a list: numbers between spaces, commas, semicolons or brackets; JSON; or a saved schedule.
pub fn parse(text: &str) -> Result<Given> {
    let trimmed = text.trim();
    if trimmed.starts_with('{') {
        return Ok(Given::Saved(Box::new(result::parse(trimmed, false)?.schedule)));
    }
    if trimmed.starts_with('[')
        && let Ok(Value::Array(list)) = json_file::parse(trimmed)
    {
        let each = list.iter().enumerate().map(|(i, v)| {
            v.as_f64().ok_or_else(|| Error::new(Kind::Format, format!("entry {i} of the list is {v}, not a number")))
        });
        return Ok(Given::Numbers(each.collect::<Result<_>>()?));
    }
    let words = trimmed.split(|c: char| c.is_whitespace() || ",;[]()".contains(c)).filter(|w| !w.is_empty());
    let each = words.enumerate().map(|(i, w)| match w.trim_end_matches(['f', 'F']).parse::<f64>() {
        Ok(x) => Ok(x),
        Err(_) if w == "…" || w == "..." => {
            let e = Error::new(Kind::Format, format!("entry {i} of the list is `{w}`: the list is shortened"));
            Err(e.hint("give all its values"))
        }
        Err(_) => {
            let e = Error::new(Kind::Format, format!("entry {i} of the list is `{w}`, not a number"));
            Err(e.hint("a list is numbers between spaces or commas, like \"14.615 6.475 0.029\", or a file"))
        }
    });
    Ok(Given::Numbers(each.collect::<Result<_>>()?))
}

/// How many training steps a schedule has, where its network is told indices.
fn training_steps(noise: &Noise) -> Option<f64> {
    let spec = noise.spec();
    match noise.name() {
        "vp_discrete" => Some((1.0 / noise.t_min()).round()),
        "vp_linear" | "vp_cosine" => Some(1000.0),
        "flow" => Some(spec["steps"].as_f64().unwrap_or(1000.0)),
        _ => None,
    }
}

fn no_timesteps(noise: &Noise) -> Error {
    let e = Error::value(format!("noise schedule `{}` has no timesteps", noise.name()));
    e.hint("its networks are told σ; timesteps belong to sd, ldm, vp_linear, vp_cosine and flow")
}

/// The level σ/α at a timestep.
pub fn level_of_timestep(noise: &Noise, k: f64) -> Result<f64> {
    let steps = training_steps(noise).ok_or_else(|| no_timesteps(noise))?;
    Ok(match noise.name() {
        "flow" => of_flow(k / steps),
        "vp_discrete" => noise.ve_sigma(&((k + 1.0) / steps).into()).v(),
        _ => noise.ve_sigma(&(k / (steps - 1.0)).into()).v(),
    })
}

/// The timestep at a level σ/α, not rounded.
pub fn timestep(noise: &Noise, sigma: f64) -> Result<f64> {
    let steps = training_steps(noise).ok_or_else(|| no_timesteps(noise))?;
    Ok(match noise.name() {
        "flow" => steps * flow_of(sigma),
        "vp_discrete" => noise.t_of_sigma(&sigma.into()).v() * steps - 1.0,
        _ => noise.t_of_sigma(&sigma.into()).v() * (steps - 1.0),
    })
}

/// The timestep between whose neighbours σ is interpolated linearly to `sigma`, as diffusers does with floats.
pub fn timestep_linear(noise: &Noise, sigma: f64) -> Result<f64> {
    if noise.name() != "vp_discrete" {
        return timestep(noise, sigma);
    }
    let last = training_steps(noise).unwrap_or(1000.0) - 1.0;
    let k = timestep(noise, sigma)?.floor().clamp(0.0, last - 1.0);
    let [low, high] = [level_of_timestep(noise, k)?, level_of_timestep(noise, k + 1.0)?];
    Ok((k + (sigma - low) / (high - low)).clamp(0.0, last))
}

fn counted(n: usize) -> String {
    if n == 1 { "1 value".into() } else { format!("{n} values") }
}

/// A list in a form, as levels; and notes about what was taken for rounding or implied.
pub fn levels(list: &[f64], form: Form, noise: &Noise) -> Result<(Levels, Vec<String>)> {
    if let Some(i) = list.iter().position(|v| !v.is_finite()) {
        return Err(Error::value(format!("entry {i} of the list is {}", list[i])));
    }
    if list.len() < 2 {
        let e = Error::value(format!("{} in the list: a schedule takes at least 2", counted(list.len())));
        return Err(e.hint("the first is where sampling starts, the last where it ends"));
    }
    let falls = form != Form::Lambdas;
    if let Some(i) = list.windows(2).position(|w| if falls { w[1] >= w[0] } else { w[1] <= w[0] }) {
        let way = if falls { "descend" } else { "ascend" };
        let m =
            format!("{} must {way}, but entry {i} is {} and entry {} is {}", form.name(), list[i], i + 1, list[i + 1]);
        let turned = list.windows(2).all(|w| if falls { w[1] > w[0] } else { w[1] < w[0] });
        let hint = if turned {
            "the list is the other way round: turn it"
        } else {
            "sampling goes from the most noise to the least"
        };
        return Err(Error::value(m).hint(hint));
    }
    let flow = noise.name() == "flow";
    let mut notes = vec![];
    let mut sigma: Vec<f64> = list
        .iter()
        .map(|v| match form {
            Form::Sigmas if flow => Ok(of_flow(*v)),
            Form::Flow => Ok(of_flow(*v)),
            Form::Sigmas => Ok(*v),
            Form::Lambdas => Ok((-v).exp()),
            Form::Times => Ok(noise.ve_sigma(&(*v).into()).v()),
            Form::Timesteps => level_of_timestep(noise, *v),
        })
        .collect::<Result<_>>()?;
    let wrong = |i: usize| sigma[i].is_nan() || sigma[i] < 0.0 || form != Form::Lambdas && list[i] < 0.0;
    if let Some(i) = (0..list.len()).find(|i| wrong(*i)) {
        let m = format!(
            "entry {i} of the list, {}, is no {} of noise schedule `{}`",
            list[i],
            singular(form),
            noise.name()
        );
        return Err(Error::value(m));
    }
    within(&mut sigma, list, noise, &mut notes)?;
    if form == Form::Timesteps && sigma.last() != Some(&0.0) {
        sigma.push(0.0);
        notes.push("timesteps are those of evaluations: an end at σ = 0 is implied".into());
    }
    Ok((Levels { sigma, noise: noise.clone(), name: "list".into(), told: None, solver: None }, notes))
}

fn singular(form: Form) -> &'static str {
    match form {
        Form::Sigmas => "σ",
        Form::Timesteps => "timestep",
        Form::Lambdas => "λ",
        Form::Times => "time",
        Form::Flow => "flow σ",
    }
}

/// Moves what is outside of the noise schedule's range by no more than rounding into it; an end at 0 stays.
fn within(sigma: &mut [f64], list: &[f64], noise: &Noise, notes: &mut Vec<String>) -> Result<()> {
    let level = |t: f64| noise.ve_sigma(&t.into()).v();
    let (least, most) = (level(noise.t_min()), level(noise.t_max()));
    let last = sigma.len() - 1;
    for (i, s) in sigma.iter_mut().enumerate() {
        if *s == 0.0 && i == last {
            continue;
        }
        let end = s.clamp(least, most);
        if end == *s {
            continue;
        }
        // three digits, or half a unit of the third decimal
        let off = (*s - end).abs();
        if off > 5e-3 * end && off > 5.1e-4 {
            let m = format!(
                "entry {i} of the list, {}, is at σ/α = {s:.6}, outside of the range of noise schedule `{}`: {least:.6} to {most:.6}",
                list[i],
                noise.name()
            );
            return Err(Error::value(m).hint("is it the list of another model? `--noise` names the schedule"));
        }
        notes.push(format!(
            "entry {i}, {}, is outside of the model's range by rounding: taken as σ/α = {end:.6}",
            list[i]
        ));
        *s = end;
    }
    Ok(())
}

/// Levels in a form. Timesteps are those of evaluations: an end at 0 is left out.
pub fn in_form(levels: &Levels, form: Form) -> Result<Vec<f64>> {
    let noise = &levels.noise;
    let of = |s: &f64| match form {
        Form::Sigmas if levels.is_flow() => Ok(flow_of(*s)),
        Form::Sigmas => Ok(*s),
        Form::Flow => Ok(flow_of(*s)),
        Form::Lambdas => Ok(-s.ln()),
        Form::Times => Ok(if *s == 0.0 { 0.0 } else { noise.t_of_sigma(&(*s).into()).v() }),
        Form::Timesteps => timestep(noise, *s),
    };
    let all = match form {
        Form::Timesteps if levels.ends_at_zero() => &levels.sigma[..levels.sigma.len() - 1],
        Form::Times if levels.ends_at_zero() && noise.ve_sigma(&noise.t_min().into()).v() > 0.0 => {
            return Err(Error::value(format!("noise schedule `{}` has no time at which σ = 0", noise.name()))
                .hint("give another form with `--to`, or an end above 0"));
        }
        _ => &levels.sigma[..],
    };
    all.iter().map(of).collect()
}
