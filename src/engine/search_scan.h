// Exact search by reading: every row's distance, or first its guaranteed bound from codes and then
// only of the rows that can still be hits. All cores share a large scan.
#pragma once

#include <span>
#include <vector>

#include "distance/metric.h"
#include "engine/search_plan.h"

namespace aionbd {

/// Floats below which a search runs on the caller alone: 4 MiB, about 100 us of reading.
inline constexpr uint64_t kParallelFloatsMin = uint64_t{1} << 20;
/// Rows whose bounds cost as much as reading one row from anywhere.
inline constexpr uint64_t kBoundsPerRead = 16;

/// Asks for a row's bytes, which lie anywhere in memory, ahead of their use.
inline void prefetch_row(const RowValues& row, size_t dim) {
  const std::byte* at = row.data();
  for (size_t i = 0; i < dim * row.value_bytes(); i += 64) __builtin_prefetch(at + i);
}

/// Distance of one row, into `best` if it is live, matches and is near enough.
Status offer(const Plan& plan, const PreparedQuery& query, uint32_t p, RowId row, Best& best,
             size_t* computed);

/// The k best of the parts that `scanned` names. `limit`: rows beyond this distance cannot be hits,
/// whatever is found here; kFarthest: nothing is known.
Result<std::vector<Candidate>> scan_parts(const SearchEnvironment& environment, const Plan& plan,
                                          std::span<const float> values,
                                          const std::vector<bool>& scanned, float limit,
                                          Effort& effort);

/// The k best of all parts.
Result<std::vector<Candidate>> scan_all(const SearchEnvironment& environment, const Plan& plan,
                                        std::span<const float> values, Effort& effort);

}  // namespace aionbd
