// One distance between two vectors, by the same kernels searches use.
#pragma once

#include <span>

#include "aionbd/status.h"
#include "aionbd/types.h"

namespace aionbd {

/// The score of `metric`: inner product, Euclidean distance (with the square root), or cosine
/// similarity. Errors: invalid_argument for empty or unequal vectors, or a zero vector under
/// cosine.
Result<float> score_between(std::span<const float> left, std::span<const float> right,
                            Metric metric);

}  // namespace aionbd
