// A brute-force Database in memory, for the server's tests only: the smallest thing that gives the
// answers the contract describes, and can be told to be slow or to fail.
#pragma once

#include <algorithm>
#include <atomic>
#include <map>
#include <memory>
#include <string>
#include <thread>
#include <vector>

#include "aionbd/database.h"
#include "aionbd/distance.h"
#include "base/metrics.h"
#include "base/mutex.h"

namespace aionbd {

/// What a test makes the fake do. Thread safety: safe.
struct FakeBehaviour {
  std::atomic<int> delay_ms{0};            // of every search and upsert
  std::atomic<int> commit_delay_ms{0};     // of the medium, for upserts
  std::atomic<int> begun{0};               // upserts
  std::atomic<int> durable{0};             // of these, all up to this one
  std::atomic<int> commits{0};             // waits for the medium
  std::atomic<Code> fail_code{Code::kOk};  // of every upsert
  std::atomic<int> inside{0};              // calls sleeping now
  std::atomic<int> scans_with_deadline{0};
};

/// Visible at once, durable when one that was begun after it, or itself, has waited for the medium.
/// Thread safety: single owner.
class FakePendingUpsert : public PendingUpsert {
 public:
  FakePendingUpsert(Result<UpsertResult> outcome, FakeBehaviour& behaviour)
      : outcome_(std::move(outcome)), behaviour_(behaviour), number_(++behaviour.begun) {}

  bool decided() const override {
    return behaviour_.commit_delay_ms.load() == 0 || behaviour_.durable.load() >= number_;
  }
  void wait() override {
    if (decided()) return;
    const int durable = behaviour_.begun.load();
    ++behaviour_.commits;
    std::this_thread::sleep_for(std::chrono::milliseconds(behaviour_.commit_delay_ms.load()));
    behaviour_.durable = durable;
  }
  Result<UpsertResult> finish() override {
    wait();
    return std::move(outcome_);
  }

 private:
  Result<UpsertResult> outcome_;
  FakeBehaviour& behaviour_;
  const int number_;
};

/// Knows equality filters of one clause only. Thread safety: safe.
class FakeCollection : public Collection {
 public:
  FakeCollection(std::string name, CollectionOptions options, FakeBehaviour& behaviour)
      : name_(std::move(name)), options_(options), behaviour_(behaviour) {}

  CollectionInfo info() const override {
    MutexLock lock(mutex_);
    return CollectionInfo{name_, options_, points_.size()};
  }

  Result<UpsertResult> upsert(std::span<const Point> points, Deadline) override {
    pause();
    if (behaviour_.fail_code.load() != Code::kOk) {
      return Status(behaviour_.fail_code.load(), "asked to fail at /secret/path");
    }
    MutexLock lock(mutex_);
    UpsertResult out;
    for (const Point& point : points) {
      const bool created = points_.insert_or_assign(point.id, point).second;
      out.created_flags.push_back(created);
      ++(created ? out.created : out.updated);
    }
    return out;
  }

  Result<std::unique_ptr<PendingUpsert>> begin_upsert(std::span<const Point> points,
                                                      Deadline deadline) override {
    return std::unique_ptr<PendingUpsert>(
        std::make_unique<FakePendingUpsert>(upsert(points, deadline), behaviour_));
  }

  Result<uint64_t> remove(std::span<const PointId> ids, Deadline) override {
    MutexLock lock(mutex_);
    uint64_t n = 0;
    for (const PointId& id : ids) n += points_.erase(id);
    return n;
  }
  Result<uint64_t> remove_matching(const Filter& filter, Deadline deadline) override {
    note_scan(deadline);
    MutexLock lock(mutex_);
    return uint64_t{
        std::erase_if(points_, [&](const auto& entry) { return matches(&filter, entry.second); })};
  }
  Result<uint64_t> set_payload(std::span<const PointId> ids, const Payload& keys,
                               Deadline) override {
    MutexLock lock(mutex_);
    for (const PointId& id : ids) {
      if (!points_.contains(id)) return not_found("no such point: " + id.to_string());
    }
    uint64_t changed = 0;
    for (const PointId& id : ids) {
      Payload merged = points_[id].payload;
      for (const auto& [key, value] : keys) merged[key] = value;
      changed += merged != points_[id].payload;
      points_[id].payload = std::move(merged);
    }
    return changed;
  }
  Result<uint64_t> delete_payload_keys(std::span<const PointId> ids,
                                       std::span<const std::string> keys, Deadline) override {
    MutexLock lock(mutex_);
    uint64_t changed = 0;
    for (const PointId& id : ids) {
      if (!points_.contains(id)) return not_found("no such point: " + id.to_string());
      size_t erased = 0;
      for (const std::string& key : keys) erased += points_[id].payload.erase(key);
      changed += erased > 0;
    }
    return changed;
  }

  Result<GetResult> get(std::span<const PointId> ids, const GetOptions&) const override {
    MutexLock lock(mutex_);
    GetResult out;
    for (const PointId& id : ids) {
      const auto found = points_.find(id);
      if (found == points_.end()) {
        out.missing.push_back(id);
      } else {
        out.points.push_back(found->second);
      }
    }
    return out;
  }
  Result<ListPage> list(const ListRequest& request) const override {
    note_scan(request.deadline);
    MutexLock lock(mutex_);
    ListPage out;
    out.total = points_.size();
    uint64_t skip = request.offset;
    for (const auto& [id, point] : points_) {
      if (request.after_id && id <= *request.after_id) continue;
      if (!matches(request.filter, point)) continue;
      if (skip > 0) {
        --skip;
        continue;
      }
      if (out.points.size() == request.limit) {
        out.more = true;
        break;
      }
      out.points.push_back(point);
    }
    return out;
  }
  Result<uint64_t> count(const Filter* filter, Deadline deadline) const override {
    note_scan(deadline);
    MutexLock lock(mutex_);
    return static_cast<uint64_t>(std::count_if(
        points_.begin(), points_.end(), [&](const auto& e) { return matches(filter, e.second); }));
  }

  Result<SearchResult> search(const SearchRequest& request) const override {
    pause();
    MutexLock lock(mutex_);
    SearchResult out;
    out.metric = request.metric.value_or(options_.metric.value_or(Metric::kDot));
    out.recall_at_k = 1.0;
    const float sign = out.metric == Metric::kL2 ? 1.0F : -1.0F;
    for (const auto& [id, point] : points_) {
      if (!matches(request.filter, point)) continue;
      ASSIGN_OR_RETURN(const float score, score_between(request.query, point.values, out.metric));
      Hit hit{id, score, std::nullopt, std::nullopt};
      if (request.include_payload) hit.payload = point.payload;
      if (request.include_values) hit.values = point.values;
      out.hits.push_back(std::move(hit));
    }
    std::stable_sort(out.hits.begin(), out.hits.end(),
                     [&](const Hit& a, const Hit& b) { return sign * a.score < sign * b.score; });
    if (out.hits.size() > request.limit) out.hits.resize(request.limit);
    out.plan.push_back(SegmentPlan{0, "open rows", points_.size(), points_.size()});
    return out;
  }
  Result<std::vector<SearchResult>> search_batch(const SearchBatchRequest& request) const override {
    std::vector<SearchResult> out;
    for (const auto& query : request.queries) {
      SearchRequest one = request.common;
      one.query = query;
      ASSIGN_OR_RETURN(SearchResult result, search(one));
      out.push_back(std::move(result));
    }
    return out;
  }

  Result<CollectionStats> stats() const override {
    CollectionStats out;
    out.info = info();
    out.segments.push_back(
        SegmentStats{.id = 1, .rows = out.info.points_count, .memory_bytes = 64, .indexes = {}});
    return out;
  }
  Status optimize() override { return {}; }

 private:
  void note_scan(Deadline deadline) const {
    if (deadline != kNoDeadline) behaviour_.scans_with_deadline.fetch_add(1);
  }
  void pause() const {
    const int ms = behaviour_.delay_ms.load();
    if (ms == 0) return;
    ++behaviour_.inside;
    std::this_thread::sleep_for(std::chrono::milliseconds(ms));
    --behaviour_.inside;
  }
  static bool matches(const Filter* filter, const Point& point) {
    if (filter == nullptr || filter->must.empty()) return true;
    const Clause& clause = filter->must.front();
    const auto found = point.payload.find(clause.field);
    const auto* equal = std::get_if<EqualTo>(&clause.test);
    return found != point.payload.end() && equal != nullptr && found->second == equal->value;
  }

  const std::string name_;
  const CollectionOptions options_;
  FakeBehaviour& behaviour_;
  mutable Mutex mutex_;
  std::map<PointId, Point> points_ GUARDED_BY(mutex_);
};

/// Thread safety: safe.
class FakeDatabase : public Database {
 public:
  explicit FakeDatabase(FakeBehaviour& behaviour) : behaviour_(behaviour) {}

  Result<std::shared_ptr<Collection>> create_collection(std::string_view name,
                                                        const CollectionOptions& options,
                                                        Deadline) override {
    MutexLock lock(mutex_);
    auto& slot = collections_[std::string(name)];
    if (slot) return already_exists("collection exists: " + std::string(name));
    slot = std::make_shared<FakeCollection>(std::string(name), options, behaviour_);
    return std::shared_ptr<Collection>(slot);
  }
  Status drop_collection(std::string_view name, Deadline) override {
    MutexLock lock(mutex_);
    if (collections_.erase(std::string(name)) == 0) return not_found("no such collection");
    return {};
  }
  Result<std::shared_ptr<Collection>> collection(std::string_view name) const override {
    MutexLock lock(mutex_);
    const auto found = collections_.find(std::string(name));
    if (found == collections_.end()) return not_found("no such collection");
    return std::shared_ptr<Collection>(found->second);
  }
  std::vector<CollectionInfo> list_collections() const override {
    MutexLock lock(mutex_);
    std::vector<CollectionInfo> out;
    for (const auto& [name, collection] : collections_) out.push_back(collection->info());
    return out;
  }
  Status checkpoint() override { return {}; }
  Result<BackupReport> backup(const std::string&, const BackupOptions&,
                              const StoreProgress&) override {
    return failed_precondition("nothing is kept on the disk");
  }
  Health health() const override { return {}; }
  std::vector<MetricSample> metrics() const override {
    static constexpr MetricRow kRow = {"collections", MetricKind::kGauge, "1", "Collections."};
    return {sample_of(kRow, static_cast<double>(list_collections().size()))};
  }

 private:
  FakeBehaviour& behaviour_;
  mutable Mutex mutex_;
  std::map<std::string, std::shared_ptr<FakeCollection>> collections_ GUARDED_BY(mutex_);
};

}  // namespace aionbd
