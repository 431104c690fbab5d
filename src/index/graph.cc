#include "index/graph.h"

#include <algorithm>
#include <atomic>
#include <cmath>
#include <limits>
#include <tuple>
#include <utility>

#include "base/checksum.h"
#include "base/rng.h"

namespace aionbd {

namespace {

/// Rows among which a walk looks for its start.
constexpr size_t kEntriesMax = 128;
/// Largest share of the rows that one build batch adds: its rows cannot choose each other.
constexpr double kBatchShare = 0.02;
/// Neighbours whose mutual distances are computed together while pruning.
constexpr size_t kPruneBlock = 16;
/// A list of edges back may grow this much over the degree before it is pruned: pruning costs the
/// same for one surplus edge as for many.
constexpr double kSlack = 1.3;
/// Neighbours that a restricted walk looks for behind one row; beyond, it reads no further lists.
constexpr size_t kAllowedNeighbours = 32;
/// Allowed rows among which a restricted walk looks for its start.
constexpr size_t kAllowedStarts = 64;
/// A row with fewer neighbours than this is linked to some of the rows where walks start, too.
constexpr size_t kFewChosen = 6;
/// Copies that each of many copies of a row is linked to.
constexpr size_t kCopyLinks = 8;
/// Rows that may lose edges so that the stored lists of all can be shorter.
constexpr double kCutShare = 0.02;

/// Estimates from the codes of the segment.
struct CodeScorer {
  const PlaneQuery& query;
  const PlaneLayout& layout;
  const uint8_t* high;
  RowsAhead ahead;

  /// The row will be verified, most likely.
  void expanded(uint32_t row) const {
    if (ahead.values == nullptr) return;
    const std::byte* at = ahead.values + row * ahead.row_bytes;
    for (size_t i = 0; i < ahead.row_bytes; i += 64) __builtin_prefetch(at + i, 0, 2);
  }

  void prefetch(uint32_t row) const {
    const uint8_t* at = high + row * layout.high_stride();
    for (size_t line = 0; line < layout.lines; ++line) __builtin_prefetch(at + line * 64);
  }
  void score(const uint32_t* rows, size_t n, float* out) const {
    query.estimate(high, rows, n, out);
  }
};

}  // namespace

/// Thread safety: single owner.
class GraphWalk {
 public:
  GraphWalk(const GraphView& graph, size_t ef, GraphScratch* scratch)
      : graph_(graph), ef_(ef), s_(*scratch) {
    const size_t words = (size_t{graph.rows} + 63) / 64;
    if (s_.visited_.size() != words) {
      s_.visited_.assign(words, 0);
    } else if (s_.touched_.size() > words / 8) {
      std::fill(s_.visited_.begin(), s_.visited_.end(), 0);
    } else {
      for (const uint32_t row : s_.touched_) s_.visited_[row / 64] = 0;
    }
    s_.touched_.clear();
    if (s_.pool_.size() < ef) s_.pool_.resize(ef);
    s_.looks_ = 0;
    visited_ = s_.visited_.data();
    pool_ = s_.pool_.data();
  }

  // Whether a neighbour is new, and whether it is near enough, are coin flips to the CPU, so both
  // are decided without a branch. A read from memory takes as long as estimating 30 rows: the lists
  // of edges are asked for as soon as a row enters the pool, and the next row is expanded while the
  // codes of the last one's neighbours are on their way.
  template <class Scorer>
  void run(const Scorer& scorer, std::span<const uint32_t> entries) {
    start(scorer, entries);
    uint32_t fresh[2][kDegreeMax];
    size_t n[2] = {0, 0};
    float distances[kDegreeMax];
    size_t at = 0;  // all rows before it are expanded
    for (size_t turn = 0;; turn ^= 1) {
      const bool expands = at < count_;
      if (expands) {
        GraphCandidate& next = pool_[at];
        n[turn] = gather(scorer, next.row, fresh[turn], 0);
        // Earlier ones hardly ever stay in the pool.
        if (count_ == ef_) scorer.expanded(next.row);
        next.row |= kExpanded;
      }
      const size_t last = turn ^ 1;
      if (!expands && n[last] == 0) break;
      if (n[last] > 0) at = std::min(at, take(scorer, fresh[last], &n[last], distances));
      while (at < count_ && (pool_[at].row & kExpanded) != 0) ++at;
    }
    for (size_t i = 0; i < count_; ++i) pool_[i].row &= ~kExpanded;
    s_.pool_count_ = count_;
  }

  /// As run, but only allowed rows are estimated, kept and expanded.
  template <class Scorer>
  void run_allowed(const Scorer& scorer, const AllowedRows& allowed) {
    start_allowed(scorer, allowed);
    uint32_t fresh[2 * kFreshMax];
    float distances[2 * kFreshMax];
    size_t at = 0;
    while (at < count_) {
      size_t n = 0;
      size_t expanded = 0;
      for (size_t i = at; i < count_ && expanded < kExpandTogether; ++i) {
        if ((pool_[i].row & kExpanded) != 0) continue;
        n = gather_allowed(scorer, allowed, pool_[i].row, fresh, n);
        pool_[i].row |= kExpanded;
        ++expanded;
      }
      at = std::min(at, take(scorer, fresh, &n, distances));
      while (at < count_ && (pool_[at].row & kExpanded) != 0) ++at;
    }
    for (size_t i = 0; i < count_; ++i) pool_[i].row &= ~kExpanded;
    s_.pool_count_ = count_;
  }

  /// Estimates every allowed row, a block while the codes of the next are on their way.
  template <class Scorer>
  void look_at_all(const Scorer& scorer, const AllowedRows& allowed) {
    constexpr size_t kBlock = 32;
    uint32_t rows[2][kBlock + 64];
    size_t n[2] = {0, 0};
    float distances[kBlock + 64];
    size_t turn = 0;
    const auto look = [&](size_t block) {
      scorer.score(rows[block], n[block], distances);
      s_.looks_ += n[block];
      take_nearer(rows[block], distances, std::exchange(n[block], 0));
    };
    const size_t words = (size_t{graph_.rows} + 63) / 64;
    for (size_t w = 0; w < words; ++w) {
      for (uint64_t word = allowed.words[w]; word != 0; word &= word - 1) {
        const auto row = static_cast<uint32_t>(w * 64 + static_cast<size_t>(__builtin_ctzll(word)));
        scorer.prefetch(row);
        rows[turn][n[turn]++] = row;
      }
      if (n[turn] < kBlock) continue;
      turn ^= 1;
      look(turn);
    }
    look(turn ^ 1);
    look(turn);
    s_.pool_count_ = count_;
  }

  /// Neighbours of one row, at most.
  static constexpr size_t kDegreeMax = 256;

 private:
  template <class Scorer>
  void start(const Scorer& scorer, std::span<const uint32_t> entries) {
    float distances[kEntriesMax];
    const size_t n = std::min(entries.size(), kEntriesMax);
    scorer.score(entries.data(), n, distances);
    s_.looks_ += n;
    size_t best = 0;
    for (size_t i = 1; i < n; ++i) {
      if (distances[i] < distances[best]) best = i;
    }
    first_visit(entries[best]);
    s_.touched_.push_back(entries[best]);
    insert(distances[best], entries[best]);
  }

  /// Appends to `fresh`, which has n rows, the neighbours of `row` not met before.
  template <class Scorer>
  size_t gather(const Scorer& scorer, uint32_t row, uint32_t* fresh, size_t n) {
    const uint32_t* neighbours = graph_.of(row);
    const size_t before = n;
    for (uint32_t i = 0; i < graph_.degree && neighbours[i] != kNoNeighbour; ++i) {
      fresh[n] = neighbours[i];
      n += first_visit(neighbours[i]);
    }
    for (size_t i = before; i < n; ++i) scorer.prefetch(fresh[i]);
    return n;
  }

  template <class Scorer>
  void start_allowed(const Scorer& scorer, const AllowedRows& allowed) {
    uint32_t rows[kAllowedStarts];
    float distances[kAllowedStarts];
    size_t n = 0;
    const size_t words = (size_t{graph_.rows} + 63) / 64;
    // From kAllowedStarts places that lie evenly, the next allowed row each.
    for (size_t i = 0, w = 0; i < kAllowedStarts && w < words; ++i) {
      w = std::max(w, words * i / kAllowedStarts);
      while (w < words && allowed.words[w] == 0) ++w;
      if (w == words) break;
      rows[n] =
          static_cast<uint32_t>(w * 64 + static_cast<size_t>(__builtin_ctzll(allowed.words[w])));
      first_visit(rows[n++]);
      ++w;
    }
    s_.touched_.insert(s_.touched_.end(), rows, rows + n);
    scorer.score(rows, n, distances);
    s_.looks_ += n;
    take_nearer(rows, distances, n);
  }

  /// As gather, for the allowed rows among the neighbours and, while those are few, among the
  /// neighbours of the others.
  template <class Scorer>
  size_t gather_allowed(const Scorer& scorer, const AllowedRows& allowed, uint32_t row,
                        uint32_t* fresh, size_t n) {
    uint32_t bridges[kDegreeMax];
    size_t bridges_count = 0;
    const size_t before = n;
    const auto take = [&](uint32_t at) {
      fresh[n] = at;
      n += first_visit(at);
    };
    const uint32_t* neighbours = graph_.of(row);
    for (uint32_t i = 0; i < graph_.degree && neighbours[i] != kNoNeighbour; ++i) {
      const uint32_t at = neighbours[i];
      if (allowed.contains(at)) {
        take(at);
      } else if ((visited_[at / 64] >> (at % 64) & 1) == 0) {
        bridges[bridges_count++] = at;
        prefetch_edges(at);
      }
    }
    for (size_t b = 0; b < bridges_count && n - before < kAllowedNeighbours; ++b) {
      first_visit(bridges[b]);
      s_.touched_.push_back(bridges[b]);
      const uint32_t* behind = graph_.of(bridges[b]);
      for (uint32_t i = 0; i < graph_.degree && behind[i] != kNoNeighbour; ++i) {
        if (allowed.contains(behind[i])) take(behind[i]);
      }
    }
    for (size_t i = before; i < n; ++i) scorer.prefetch(fresh[i]);
    return n;
  }

  /// Estimates n fresh rows, which makes n 0, and puts those near enough into the pool; the place
  /// of the nearest of them.
  template <class Scorer>
  size_t take(const Scorer& scorer, uint32_t* fresh, size_t* n, float* distances) {
    s_.touched_.insert(s_.touched_.end(), fresh, fresh + *n);
    scorer.score(fresh, *n, distances);
    s_.looks_ += *n;
    return take_nearer(fresh, distances, std::exchange(*n, 0));
  }

  /// Puts those near enough into the pool; the place of the nearest of them.
  size_t take_nearer(uint32_t* rows, float* distances, size_t n) {
    size_t near = 0;
    const float worst =
        count_ < ef_ ? std::numeric_limits<float>::infinity() : pool_[ef_ - 1].distance;
    for (size_t i = 0; i < n; ++i) {
      rows[near] = rows[i];
      distances[near] = distances[i];
      near += distances[i] < worst ? 1 : 0;
    }
    size_t nearest = ef_;
    for (size_t i = 0; i < near; ++i) {
      const size_t place = insert(distances[i], rows[i]);
      nearest = std::min(nearest, place);
      if (place < ef_) prefetch_edges(rows[i]);
    }
    return nearest;
  }

  void prefetch_edges(uint32_t row) const {
    const char* at = reinterpret_cast<const char*>(graph_.of(row));
    const size_t bytes = size_t{graph_.degree} * sizeof(uint32_t);
    for (size_t i = 0; i < bytes; i += 64) __builtin_prefetch(at + i);
  }

  /// 1 if it was not visited before.
  size_t first_visit(uint32_t row) {
    uint64_t& word = visited_[row / 64];
    const uint64_t before = word >> (row % 64) & 1;
    word |= uint64_t{1} << (row % 64);
    return 1 - before;
  }

  /// Its place in the pool; ef when it did not get in.
  size_t insert(float distance, uint32_t row) {
    if (count_ == ef_ && !(distance < pool_[ef_ - 1].distance)) return ef_;
    const GraphCandidate* low = pool_;
    for (size_t length = count_; length > 0;) {
      const size_t half = (length + 1) / 2;
      low = low[half - 1].distance <= distance ? low + half : low;
      length -= half;
    }
    const auto place = static_cast<size_t>(low - pool_);
    if (count_ < ef_) ++count_;
    for (size_t i = count_ - 1; i > place; --i) pool_[i] = pool_[i - 1];
    pool_[place] = {distance, row};
    return place;
  }

  static constexpr size_t kExpandTogether = 2;
  static constexpr size_t kFreshMax = kDegreeMax * kExpandTogether;
  static constexpr uint32_t kExpanded = uint32_t{1} << 31;

  const GraphView graph_;
  const size_t ef_;
  GraphScratch& s_;
  uint64_t* visited_ = nullptr;
  GraphCandidate* pool_ = nullptr;
  size_t count_ = 0;
};

void search_graph(const GraphView& graph, const PlaneQuery& query, const PlaneLayout& layout,
                  const uint8_t* high, size_t ef, GraphScratch* scratch, const RowsAhead& ahead) {
  GraphWalk walk(graph, ef, scratch);
  const CodeScorer scorer{query, layout, high, ahead};
  if (scratch->allowed().words == nullptr) {
    walk.run(scorer, graph.entries);
  } else if (scratch->allowed().look_at_all) {
    walk.look_at_all(scorer, scratch->allowed());
  } else {
    walk.run_allowed(scorer, scratch->allowed());
  }
}

/// Thread safety: the phases of a batch run on the pool; everything else is single owner.
class GraphBuild::Builder {
 public:
  Builder(const ByteCodes& codes, const PlaneLayout& layout, const uint8_t* high, uint32_t rows,
          const GraphParameters& parameters, ThreadPool* pool)
      : codes_(codes),
        layout_(layout),
        high_(high),
        parameters_(parameters),
        pool_(*pool),
        rows_(rows),
        wide_(static_cast<uint32_t>(parameters.degree * kSlack)) {
    find_copies();
    lists_.assign(size_t{rows_} * wide_, kNoNeighbour);
    counts_.assign(rows_, 0);
  }

  bool add(std::span<const uint32_t> all, const std::function<bool()>& cancelled) {
    const std::vector<uint32_t> leading = leaders_of(all);
    const std::span<const uint32_t> rows = copies_of_.empty() ? all : leading;
    // The first row has nobody to know; the rows of a batch do not see each other, so batches start
    // small and double.
    const auto batch_max =
        std::max<size_t>(64, static_cast<size_t>(static_cast<double>(rows_) * kBatchShare));
    size_t done = 0;
    while (done < rows.size()) {
      if (cancelled()) return false;
      const size_t n = added_ == 0 ? 1 : std::min({added_, batch_max, rows.size() - done});
      const std::span<const uint32_t> batch = rows.subspan(done, n);
      if (added_ > 0) add_batch(batch);
      for (const uint32_t row : batch) {
        if (entries_.size() < kEntriesMax) entries_.push_back(row);
      }
      done += n;
      added_ += n;
    }
    return true;
  }

  BuiltGraph finish() {
    in_parallel(rows_, [&](size_t row, Lane& lane) {
      shrink(static_cast<uint32_t>(row), parameters_.degree, lane);
    });
    // Few rows use all the room they may: the stored lists are as long as nearly all need.
    std::vector<uint32_t> lengths(parameters_.degree + 1, 0);
    for (uint32_t row = 0; row < rows_; ++row) {
      const auto links = copies_of_.empty() ? 0 : static_cast<uint32_t>(steps_of(row).size());
      ++lengths[std::min(counts_[leader_of(row)] + links, parameters_.degree)];
    }
    uint32_t stored = parameters_.degree;
    for (size_t longer = 0; stored > 1; --stored) {
      longer += lengths[stored];
      if (static_cast<double>(longer) > kCutShare * static_cast<double>(rows_)) break;
    }
    BuiltGraph out;
    out.degree = std::min(parameters_.degree, (stored + 7) / 8 * 8);
    out.neighbours.assign(size_t{rows_} * out.degree, kNoNeighbour);
    for (uint32_t row = 0; row < rows_; ++row) {
      // Lists are sorted by distance after pruning; a longer one loses its farthest.
      std::copy_n(list(row), std::min(counts_[row], out.degree),
                  out.neighbours.data() + size_t{row} * out.degree);
    }
    link_copies(&out);
    out.entries = entries_;
    return out;
  }

 private:
  /// The rows with one code that were added, in that order. The first one leads: it alone takes
  /// part in building, and the others get its neighbours.
  using Copies = std::vector<uint32_t>;
  static constexpr uint32_t kAlone = UINT32_MAX;

  /// What one thread works with.
  struct Lane {
    GraphScratch scratch;
    std::vector<GraphCandidate> candidates;
    std::vector<float> values;
    std::vector<uint32_t> rows;
    std::vector<float> distances;
    ByteQuery query;
    std::vector<uint32_t> chosen;
  };

  /// Finds the rows that codes do not tell apart.
  void find_copies() {
    struct Coded {
      uint64_t bytes;  // their checksum
      float step;
      uint32_t row;
    };
    std::vector<Coded> order(rows_);
    in_parallel(rows_, [&](size_t i, Lane&) {
      const auto row = static_cast<uint32_t>(i);
      order[i] = {checksum(codes_.bytes(row), 0), codes_.tail(row).step, row};
    });
    std::sort(order.begin(), order.end(), [](const Coded& a, const Coded& b) {
      return std::tie(a.bytes, a.step, a.row) < std::tie(b.bytes, b.step, b.row);
    });
    size_t first = 0;
    for (size_t i = 1; i < order.size(); ++i) {
      const uint32_t of = order[first].row;
      const uint32_t row = order[i].row;
      if (order[i].bytes != order[first].bytes || !codes_.same(of, row)) {
        first = i;
        continue;
      }
      if (copies_of_.empty()) copies_of_.assign(rows_, kAlone);
      if (copies_of_[of] == kAlone) {
        copies_of_[of] = static_cast<uint32_t>(copies_.size());
        copies_.emplace_back();
      }
      copies_of_[row] = copies_of_[of];
    }
  }

  /// Those among `rows` that no copy came before; notes the others. Empty where no row has copies.
  std::vector<uint32_t> leaders_of(std::span<const uint32_t> rows) {
    std::vector<uint32_t> out;
    if (copies_of_.empty()) return out;
    for (const uint32_t row : rows) {
      if (copies_of_[row] == kAlone) {
        out.push_back(row);
        continue;
      }
      Copies& copies = copies_[copies_of_[row]];
      if (copies.empty()) out.push_back(row);
      copies.push_back(row);
    }
    return out;
  }

  uint32_t leader_of(uint32_t row) const {
    if (copies_of_.empty() || copies_of_[row] == kAlone) return row;
    const Copies& copies = copies_[copies_of_[row]];
    return copies.empty() ? row : copies.front();
  }

  /// How far ahead, in the ring of the row's copies, those are that it is linked to: the next one,
  /// so that each is reached from each, and some as far apart as makes the ways short.
  std::vector<size_t> steps_of(uint32_t row) const {
    std::vector<size_t> out;
    if (copies_of_.empty() || copies_of_[row] == kAlone) return out;
    const size_t n = copies_[copies_of_[row]].size();
    for (size_t i = 0; i < kCopyLinks && out.size() + 1 < n; ++i) {
      const double power = static_cast<double>(i) / kCopyLinks;
      const auto step = static_cast<size_t>(std::pow(static_cast<double>(n), power));
      out.push_back(out.empty() ? 1 : std::max(out.back() + 1, step));
    }
    return out;
  }

  void link_copies(BuiltGraph* out) {
    for (const Copies& copies : copies_) {
      if (copies.size() < 2) continue;
      const std::vector<size_t> steps = steps_of(copies.front());
      for (size_t i = 0; i < copies.size(); ++i) {
        uint32_t* to = out->neighbours.data() + size_t{copies[i]} * out->degree;
        const size_t links = std::min<size_t>(steps.size(), out->degree);
        for (size_t s = 0; s < links; ++s) to[s] = copies[(i + steps[s]) % copies.size()];
        const uint32_t leader = copies.front();
        std::copy_n(list(leader), std::min<size_t>(counts_[leader], out->degree - links),
                    to + links);
      }
    }
  }

  uint32_t* list(uint32_t row) { return lists_.data() + size_t{row} * wide_; }
  GraphView view() const { return {lists_.data(), rows_, wide_, entries_}; }

  template <class Body>
  void in_parallel(size_t n, Body body) {
    constexpr size_t kChunk = 64;
    std::atomic<size_t> next{0};
    const size_t threads = pool_.helpers_count() + 1;
    lanes_.resize(threads);
    pool_.for_each(threads, [&](size_t lane) {
      for (;;) {
        const size_t first = next.fetch_add(kChunk);
        if (first >= n) return;
        for (size_t i = first; i < std::min(n, first + kChunk); ++i) body(i, lanes_[lane]);
      }
    });
  }

  void add_batch(std::span<const uint32_t> batch) {
    in_parallel(batch.size(), [&](size_t i, Lane& lane) {
      const uint32_t row = batch[i];
      find_candidates(row, lane);
      choose(row, parameters_.degree, lane);
      if (lane.chosen.size() < kFewChosen) look_further(row, lane);
      std::copy(lane.chosen.begin(), lane.chosen.end(), list(row));
      counts_[row] = static_cast<uint32_t>(lane.chosen.size());
    });
    add_edges_back(batch);
  }

  /// The walk makes do with 4-bit estimates, half the bytes of what then ranks its finds.
  void find_candidates(uint32_t row, Lane& lane) {
    lane.values.resize(codes_.coordinates);
    codes_.decode(row, lane.values.data());
    const PlaneQuery query(layout_, lane.values.data(), 0);
    GraphWalk walk(view(), parameters_.build_width, &lane.scratch);
    walk.run(CodeScorer{query, layout_, high_, {}}, entries_);
    lane.rows.clear();
    for (const GraphCandidate& candidate : lane.scratch.found()) lane.rows.push_back(candidate.row);
    measure(row, lane);
  }

  /// Where many rows are nearly equal, all candidates may be such, of which few are chosen: without
  /// edges to other places no walk would leave this one.
  void look_further(uint32_t row, Lane& lane) {
    lane.rows.insert(lane.rows.end(), entries_.begin(), entries_.end());
    std::sort(lane.rows.begin(), lane.rows.end());
    lane.rows.erase(std::unique(lane.rows.begin(), lane.rows.end()), lane.rows.end());
    measure(row, lane);
    choose(row, parameters_.degree, lane);
  }

  struct Edge {
    uint32_t to;
    uint32_t from;
  };

  void add_edges_back(std::span<const uint32_t> batch) {
    edges_.clear();
    for (const uint32_t row : batch) {
      for (uint32_t i = 0; i < counts_[row]; ++i) edges_.push_back({list(row)[i], row});
    }
    std::sort(edges_.begin(), edges_.end(), [](const Edge& a, const Edge& b) {
      return a.to != b.to ? a.to < b.to : a.from < b.from;
    });
    starts_.clear();
    for (size_t i = 0; i < edges_.size(); ++i) {
      if (i == 0 || edges_[i].to != edges_[i - 1].to) starts_.push_back(i);
    }
    starts_.push_back(edges_.size());
    in_parallel(starts_.size() - 1, [&](size_t i, Lane& lane) {
      merge({edges_.data() + starts_[i], starts_[i + 1] - starts_[i]}, lane);
    });
  }

  void merge(std::span<const Edge> edges, Lane& lane) {
    const uint32_t row = edges[0].to;
    uint32_t* to = list(row);
    uint32_t& count = counts_[row];
    if (count + edges.size() <= wide_) {
      for (const Edge& edge : edges) to[count++] = edge.from;
      return;
    }
    lane.rows.assign(to, to + count);
    for (const Edge& edge : edges) lane.rows.push_back(edge.from);
    choose_among(row, lane);
  }

  /// From lane.rows.
  void choose_among(uint32_t row, Lane& lane) {
    measure(row, lane);
    choose(row, parameters_.degree, lane);
    uint32_t* to = list(row);
    std::copy(lane.chosen.begin(), lane.chosen.end(), to);
    std::fill(to + lane.chosen.size(), to + wide_, kNoNeighbour);
    counts_[row] = static_cast<uint32_t>(lane.chosen.size());
  }

  /// lane.rows to lane.candidates, nearest first.
  void measure(uint32_t row, Lane& lane) {
    lane.distances.resize(lane.rows.size());
    lane.query.take(codes_, row);
    lane.query.distances(codes_, lane.rows.data(), lane.rows.size(), lane.distances.data());
    lane.candidates.clear();
    for (size_t i = 0; i < lane.rows.size(); ++i) {
      lane.candidates.push_back({lane.distances[i], lane.rows[i]});
    }
    std::sort(lane.candidates.begin(), lane.candidates.end(),
              [](const GraphCandidate& a, const GraphCandidate& b) {
                return a.distance != b.distance ? a.distance < b.distance : a.row < b.row;
              });
  }

  void shrink(uint32_t row, uint32_t degree, Lane& lane) {
    if (counts_[row] <= degree) return;
    lane.rows.assign(list(row), list(row) + counts_[row]);
    choose_among(row, lane);
  }

  /// RobustPrune: nearest first, a candidate stays unless one already chosen is nearer to it than
  /// the row is, by the factor alpha.
  void choose(uint32_t row, uint32_t degree, Lane& lane) {
    lane.chosen.clear();
    float distances[kPruneBlock];
    for (size_t at = 0; at < lane.candidates.size(); ++at) {
      constexpr size_t kAhead = 2;
      if (at + kAhead < lane.candidates.size()) codes_.prefetch(lane.candidates[at + kAhead].row);
      const GraphCandidate& candidate = lane.candidates[at];
      if (candidate.row == row) continue;
      lane.query.take(codes_, candidate.row);
      bool occluded = false;
      for (size_t first = 0; first < lane.chosen.size() && !occluded; first += kPruneBlock) {
        const size_t n = std::min(kPruneBlock, lane.chosen.size() - first);
        lane.query.distances(codes_, lane.chosen.data() + first, n, distances);
        for (size_t i = 0; i < n; ++i) {
          if (parameters_.alpha * distances[i] <= candidate.distance) {
            occluded = true;
            break;
          }
        }
      }
      if (occluded) continue;
      lane.chosen.push_back(candidate.row);
      if (lane.chosen.size() == degree) break;
    }
  }

  const ByteCodes codes_;
  const PlaneLayout layout_;
  const uint8_t* const high_;
  const GraphParameters parameters_;
  ThreadPool& pool_;
  const uint32_t rows_;
  const uint32_t wide_;  // room of a list
  std::vector<uint32_t> lists_;
  std::vector<uint32_t> counts_;
  std::vector<uint32_t> entries_;
  std::vector<uint32_t> copies_of_;  // where in copies_; empty when no row has any
  std::vector<Copies> copies_;
  size_t added_ = 0;
  std::vector<Lane> lanes_;
  std::vector<Edge> edges_;
  std::vector<size_t> starts_;
};

GraphBuild::GraphBuild(const ByteCodes& codes, const PlaneLayout& layout, const uint8_t* high,
                       uint32_t rows, const GraphParameters& parameters, ThreadPool* pool)
    : builder_(std::make_unique<Builder>(codes, layout, high, rows, parameters, pool)) {}

GraphBuild::~GraphBuild() = default;

bool GraphBuild::add(std::span<const uint32_t> rows, const std::function<bool()>& cancelled) {
  return builder_->add(rows, cancelled);
}

BuiltGraph GraphBuild::finish() {
  return builder_->finish();
}

}  // namespace aionbd
