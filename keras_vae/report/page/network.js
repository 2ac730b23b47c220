// The forward pass of the networks in a report: dense layers and convolutions, in plain loops over Float32Arrays.
// It knows no page, so that it runs anywhere.
"use strict";

const ACTIVATIONS = {
  linear: (x) => x,
  relu: (x) => Math.max(0, x),
  tanh: Math.tanh,
  sigmoid: (x) => 1 / (1 + Math.exp(-x)),
  elu: (x) => (x > 0 ? x : Math.expm1(x)),
  gelu: (x) => 0.5 * x * (1 + erf(x / Math.SQRT2)),
  silu: (x) => x / (1 + Math.exp(-x)),
  softplus: (x) => Math.max(x, 0) + Math.log1p(Math.exp(-Math.abs(x))),
};

// The mean of p(x|z), a pixel from a parameter and the likelihood's scale.
const clip = (x) => Math.min(1, Math.max(0, x));
const MEANS = {
  Bernoulli: ACTIVATIONS.sigmoid,
  ContinuousBernoulli: (x) => (Math.abs(x) < 0.01 ? 0.5 + x / 12 : 1 / (1 - Math.exp(-x)) - 1 / x),
  DiscretizedLogistic: (x, scale) =>
    clip(scale * (ACTIVATIONS.softplus(x / scale) - ACTIVATIONS.softplus((x - 1) / scale))),
  Gaussian: clip,
};

// Abramowitz and Stegun, Handbook of Mathematical Functions, formula 7.1.26: right to 1.5e-7.
function erf(x) {
  const t = 1 / (1 + 0.3275911 * Math.abs(x));
  const poly = t * (0.254829592 + t * (-0.284496736 + t * (1.421413741 + t * (-1.453152027 + t * 1.061405429))));
  return Math.sign(x) * (1 - poly * Math.exp(-x * x));
}

// A convolution, or a transposed one, which is the same with the two maps exchanged. A dense layer is a convolution of
// one pixel. Maps are [height, width, channels] in one Float32Array, as Keras flattens them.
function convolve(step, [input], weights) {
  const [kernelHeight, kernelWidth, channels, filters] = step.kernel;
  const [height, width] = step.to;
  const output = new Float32Array(height * width * filters);
  for (let o = 0; o < output.length; o += filters)
    for (let f = 0; f < filters; f++) output[o + f] = weights[step.bias + f];
  const [small, large] = step.transposed ? [step.from, step.to] : [step.to, step.from];
  for (let y = 0; y < small[0]; y++)
    for (let x = 0; x < small[1]; x++)
      for (let ky = 0; ky < kernelHeight; ky++) {
        const largeY = y * step.strides[0] + ky - step.pad[0];
        if (largeY < 0 || largeY >= large[0]) continue;
        for (let kx = 0; kx < kernelWidth; kx++) {
          const largeX = x * step.strides[1] + kx - step.pad[1];
          if (largeX < 0 || largeX >= large[1]) continue;
          const smallPixel = y * small[1] + x, largePixel = largeY * large[1] + largeX;
          const i = (step.transposed ? smallPixel : largePixel) * channels;
          const o = (step.transposed ? largePixel : smallPixel) * filters;
          let w = step.weights + (ky * kernelWidth + kx) * channels * filters;
          for (let c = 0; c < channels; c++, w += filters) {
            const value = input[i + c];
            if (value !== 0) for (let f = 0; f < filters; f++) output[o + f] += value * weights[w + f];
          }
        }
      }
  return output;
}

// Maps of one height and width, behind each other in every pixel.
function concatenate(step, maps) {
  const total = step.channels.reduce((sum, count) => sum + count);
  const output = new Float32Array((maps[0].length / step.channels[0]) * total);
  let first = 0;
  for (const [index, count] of step.channels.entries()) {
    for (let i = 0; i < maps[index].length; i++) output[Math.floor(i / count) * total + first + (i % count)] = maps[index][i];
    first += count;
  }
  return output;
}

const STEPS = {
  convolve,
  add: (step, maps) => maps.reduce((sum, map) => sum.map((x, i) => x + map[i])),
  concatenate,
  oneHot: (step, [label]) => new Float32Array(step.size).fill(1, label[0], label[0] + 1),
  repeat: (step, [vector]) => Float32Array.from({ length: step.times * vector.length }, (_, i) => vector[i % vector.length]),
  multiply: (step, maps) => maps.reduce((product, map) => product.map((x, i) => x * map[i])),
};

// Runs a network, a list of steps, on its inputs, Float32Arrays. Maps are the inputs and then what each step computes.
function run(steps, inputs, weights) {
  const maps = [...inputs];
  for (const step of steps) {
    const map = STEPS[step.kind](step, step.inputs.map((number) => maps[number]), weights);
    maps.push(step.activation === "linear" ? map : map.map(ACTIVATIONS[step.activation]));
  }
  return maps.at(-1);
}

// Base64 of the bytes of a typed array -> the array.
function decodeBase64(text, Type) {
  return new Type(Uint8Array.from(atob(text), (character) => character.charCodeAt(0)).buffer);
}

// z -> the mean image, pixels in [0, 1]; image -> z_mean, or the code of an autoencoder. A conditional model takes a
// label as well. `model` is the explorer's data.
function openModel(model) {
  const weights = decodeBase64(model.weights, Float32Array);
  const inputs = (first, label) => (model.classes ? [first, Float32Array.of(label)] : [first]);
  return {
    decode: (z, label) => run(model.decoder, inputs(z, label), weights).map((x) => MEANS[model.mean](x, model.scale)),
    encode: (image, label) => run(model.encoder, inputs(image, label), weights),
  };
}
