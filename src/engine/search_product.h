// Exact answers of many queries at once: a matrix product per block of rows collects candidates,
// the scan's kernel ranks them.
#pragma once

#include <span>
#include <vector>

#include "engine/search_plan.h"
#include "engine/search_walk.h"

namespace aionbd {

/// Whether queries are better answered one by one than by the matrix product.
bool one_by_one(const Plan& plan, size_t queries);

/// Queries for which the product pays at all.
inline constexpr size_t kBatchQueriesMin = 4;

/// Answers queries [first, last) into `out`.
Status search_group(const SearchEnvironment& environment, const Plan& plan,
                    const std::vector<std::span<const float>>& queries, size_t first, size_t last,
                    Effort& effort, std::vector<Answer>& out);

}  // namespace aionbd
