// The k best points of one view.
//
// One query is a scan: distances of a block of rows, then a compare against the current k-th best.
// Many queries are a matrix product per block of rows (PreparedBatch), which reads each row once
// for all of them. Its distances differ from the scan's in the last bits, so it only collects
// candidates: everything that the proven errors leave possible. The candidates are then ranked by
// the scan's own kernel, and the answer is bit for bit the one a single query gets. Where too many
// rows tie, or errors cannot be bounded, the query is answered by a scan.
//
// The answer does not depend on segment layout or thread count: a distance depends on query and row
// alone, and ties are broken by id.
#pragma once

#include <atomic>
#include <span>
#include <vector>

#include "aionbd/collection.h"
#include "base/clock.h"
#include "base/thread_pool.h"
#include "engine/segment.h"

namespace aionbd {

class AnswerAccount;

/// An IVF index needs this many points for its lists to be worth having; below, `mode: ivf` is
/// refused (HTTP contract).
inline constexpr uint64_t kIvfPointsMin = 256;

struct SearchEnvironment {
  const Clock& clock;
  ThreadPool& pool;
  uint32_t nprobe_default = 8;  // lists that mode ivf visits when nothing else is asked
  /// Counts, if given, the rows in segments without an index, once for each query.
  std::atomic<uint64_t>* bare_reads = nullptr;
  AnswerAccount* account = nullptr;  // pays for the hits, if anybody does
};

/// One result per query. Errors: invalid_argument, deadline_exceeded, corruption.
Result<std::vector<SearchResult>> search_view(const SearchEnvironment& environment,
                                              const View& view, const CollectionOptions& collection,
                                              const std::vector<std::span<const float>>& queries,
                                              const SearchRequest& common);

}  // namespace aionbd
