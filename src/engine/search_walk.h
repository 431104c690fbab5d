// Search by indexes: a walk of the graph or a visit of lists proposes rows, their exact distances
// decide.
#pragma once

#include <span>
#include <vector>

#include "engine/search_plan.h"

namespace aionbd {

struct Answer {
  std::vector<Candidate> hits;
  SearchMode mode = SearchMode::kExact;
  double recall = 1;
};

/// Walks the parts that have a walk, reads the others.
Result<Answer> walk_one(const SearchEnvironment& environment, const Plan& plan,
                        std::span<const float> values, Effort& effort);

}  // namespace aionbd
