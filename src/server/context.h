// What handlers share: the settings, the database once it is loaded, JSON readers, the metrics.
#pragma once

#include <atomic>
#include <memory>
#include <string>
#include <vector>

#include "aionbd/database.h"
#include "base/clock.h"
#include "base/log.h"
#include "base/metrics.h"
#include "base/mutex.h"
#include "server/json.h"
#include "server/routes.h"
#include "server/settings.h"
#include "server/wire.h"

namespace aionbd {

/// What the server counts itself. Thread safety: safe.
struct ServerMetrics {
  Counter requests;
  Counter responses_2xx;
  Counter responses_4xx;
  Counter responses_5xx;
  Counter duration_us;
  Gauge duration_us_max;
  Histogram duration[kRouteClassesCount];
  Counter auth_failures;
  Counter rate_limit_rejections;
  Counter audit_events;
  Counter tenant_collection_rejections;
  Counter tenant_point_rejections;
};

/// Thread safety: safe.
class ServerContext {
 public:
  ServerContext(Settings settings, Logger logger);

  const Settings& settings() const { return settings_; }
  const WireLimits& limits() const { return limits_; }
  const Logger& logger() const { return logger_; }
  ServerMetrics& metrics() { return metrics_; }
  uint64_t uptime_ms() const;

  /// The engine, or null while it loads and after it was closed.
  Database* database() const { return database_.load(std::memory_order_acquire); }
  void set_database(Database* database) { database_.store(database, std::memory_order_release); }
  /// True once the server is to stop: long work gives up.
  bool stopping() const { return stopping_.load(std::memory_order_relaxed); }
  void set_stopping() { stopping_.store(true, std::memory_order_relaxed); }
  /// The transport's counters; set once, before the first request.
  void set_http(const HttpCounters* http) { http_.store(http, std::memory_order_release); }
  const HttpCounters* http() const { return http_.load(std::memory_order_acquire); }

  /// The collection a path names. Errors: invalid_argument (bad name), not_found, unavailable.
  Result<std::shared_ptr<Collection>> collection(std::string_view name) const;
  Result<Database*> require_database() const;

  /// A JSON reader for the length of one decoding; its buffers are reused.
  class ReaderLease {
   public:
    ReaderLease(ServerContext& owner, std::unique_ptr<JsonReader> reader)
        : owner_(owner), reader_(std::move(reader)) {}
    ~ReaderLease() { owner_.give_back(std::move(reader_)); }
    ReaderLease(const ReaderLease&) = delete;
    ReaderLease& operator=(const ReaderLease&) = delete;
    operator JsonReader&() { return *reader_; }

   private:
    ServerContext& owner_;
    std::unique_ptr<JsonReader> reader_;
  };
  ReaderLease reader();

 private:
  void give_back(std::unique_ptr<JsonReader> reader);

  const Settings settings_;
  const WireLimits limits_;
  const Logger logger_;
  const MonotonicTime started_;
  ServerMetrics metrics_;
  std::atomic<Database*> database_{nullptr};
  std::atomic<const HttpCounters*> http_{nullptr};
  std::atomic<bool> stopping_{false};
  Mutex readers_mutex_;
  std::vector<std::unique_ptr<JsonReader>> readers_ GUARDED_BY(readers_mutex_);
};

}  // namespace aionbd
