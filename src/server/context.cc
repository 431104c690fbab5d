#include "server/context.h"

#include <fmt/format.h>

namespace aionbd {
namespace {

/// Readers kept: decoding is pure computation, so more than a few run at once only on big machines.
constexpr size_t kReadersKept = 8;
/// A reader that met a larger body is thrown away: its buffers are about six times the body.
constexpr size_t kReaderKeptBytes = size_t{4} << 20;

WireLimits limits_of(const Settings& settings) {
  WireLimits out;
  out.dimension_max = settings.max_dimension;
  out.page_limit_max = settings.max_page_limit;
  out.topk_limit_max = settings.max_topk_limit;
  out.batch_points_max = settings.upsert_batch_max_points;
  out.batch_queries_max = settings.search_batch_max_queries;
  out.strict_finite = settings.strict_finite;
  return out;
}

}  // namespace

ServerContext::ServerContext(Settings settings, Logger logger)
    : settings_(std::move(settings)),
      limits_(limits_of(settings_)),
      logger_(std::move(logger)),
      started_(std::chrono::steady_clock::now()) {}

uint64_t ServerContext::uptime_ms() const {
  return elapsed_us(started_, std::chrono::steady_clock::now()) / 1000;
}

Result<Database*> ServerContext::require_database() const {
  Database* database = this->database();
  if (database == nullptr) return unavailable("the engine is not loaded yet");
  return database;
}

Result<std::shared_ptr<Collection>> ServerContext::collection(std::string_view name) const {
  ASSIGN_OR_RETURN(const std::string checked, parse_collection_name(name));
  ASSIGN_OR_RETURN(Database * database, require_database());
  return database->collection(checked);
}

ServerContext::ReaderLease ServerContext::reader() {
  std::unique_ptr<JsonReader> out;
  {
    MutexLock lock(readers_mutex_);
    if (!readers_.empty()) {
      out = std::move(readers_.back());
      readers_.pop_back();
    }
  }
  if (!out) out = std::make_unique<JsonReader>();
  return ReaderLease(*this, std::move(out));
}

void ServerContext::give_back(std::unique_ptr<JsonReader> reader) {
  if (reader->capacity() > kReaderKeptBytes) return;
  MutexLock lock(readers_mutex_);
  if (readers_.size() < kReadersKept) readers_.push_back(std::move(reader));
}

}  // namespace aionbd
