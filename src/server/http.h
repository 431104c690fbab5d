// The HTTP/1.1 transport: connections, framing, time limits, threads, overload. What a request
// means is the application's business.
#pragma once

#include <cstdint>
#include <memory>
#include <string>
#include <string_view>
#include <utility>
#include <vector>

#include "aionbd/status.h"
#include "aionbd/types.h"
#include "base/clock.h"
#include "base/log.h"
#include "base/metrics.h"
#include "server/http_head.h"

namespace aionbd {

struct Route;

struct HttpResponse;

/// What is left of a request whose write waits for the medium. Destroying it waits as well.
class UnfinishedAnswer {
 public:
  virtual ~UnfinishedAnswer() = default;
  /// True: `wait` returns at once.
  virtual bool ready() const = 0;
  /// Returns when the medium has answered. Does not throw.
  virtual void wait() = 0;
  /// Fills in the answer; may have maintenance to do before. Once.
  virtual Status finish(HttpResponse& response) = 0;
};

struct HttpRequest {
  HttpHead head;          // views into the connection's buffer
  std::string_view body;  // followed by kJsonPadding readable bytes
  std::string request_id;
  MonotonicTime started;  // when the head was complete
  Deadline deadline;      // when the answer should be on its way

  // Filled by HttpApplication::admit.
  const Route* route = nullptr;
  std::vector<std::string> path_params;
  std::vector<std::pair<std::string, std::string>> query;

  // Filled by HttpApplication::handle, taken by finish.
  std::unique_ptr<UnfinishedAnswer> rest;
  /// Whatever counts the memory of the work.
  std::shared_ptr<void> memory;
};

struct HttpResponse {
  int status = 200;
  std::string_view content_type = "application/json";
  std::string body;
  /// Extra fields; values are ours, never a client's.
  std::vector<std::pair<std::string_view, std::string>> fields;
  bool close = false;
  /// Whatever counts the memory of the answer, until it is sent.
  std::shared_ptr<void> memory;

  void clear();
};

/// What the transport asks of the program above it. Called from many threads at once.
class HttpApplication {
 public:
  enum class Admission : uint8_t {
    kAnswered,   // `response` says everything; the body is not read
    kImmediate,  // handle() never blocks: health, metrics
    kWork,       // handle() may block; takes one of the work slots
  };
  virtual ~HttpApplication() = default;

  /// Routes a request whose head is known and whose body is not. Must not block.
  virtual Admission admit(HttpRequest& request, HttpResponse& response) = 0;
  /// Answers, or leaves `request.rest` for `finish`. Does not throw.
  virtual void handle(HttpRequest& request, HttpResponse& response) = 0;
  /// Answers what `handle` left. Does not throw.
  virtual void finish(HttpRequest& request, HttpResponse& response) = 0;
  /// An answer the transport itself gives.
  virtual void answer_fault(const HttpFault& fault, HttpResponse& response) = 0;
  /// After the answer was handed to the network.
  virtual void finished(const HttpRequest& request, const HttpResponse& response, uint64_t us) = 0;
};

struct HttpOptions {
  std::string address = "127.0.0.1";
  uint16_t port = 0;  // 0: any free one
  uint64_t body_bytes_max = 16777216;
  uint64_t body_memory_bytes_max = 268435456;  // of all bodies being read or handled
  size_t concurrency_max = 256;
  size_t connections_max = 1024;
  std::chrono::milliseconds request_timeout{2000};
};

/// Counted by the transport; read by the exporter. Thread safety: safe.
struct HttpCounters {
  Gauge connections;
  Counter connections_refused;
  Counter accept_failures;
  Gauge in_flight;
  Gauge parked;
  Counter overloaded;
  Gauge body_bytes;
  Gauge threads;
};

/// Listens and serves. Thread safety: safe.
class HttpServer {
 public:
  /// Binds and starts serving at once. Errors: invalid_argument (address), io_error (bind, named).
  /// `application` must outlive the server.
  static Result<std::unique_ptr<HttpServer>> start(const HttpOptions& options,
                                                   HttpApplication& application, Logger logger);
  ~HttpServer();
  HttpServer(const HttpServer&) = delete;
  HttpServer& operator=(const HttpServer&) = delete;

  uint16_t port() const;
  const HttpCounters& counters() const;
  /// True once stop() has begun.
  bool stopping() const;

  /// Stops accepting, lets running requests finish, answers new ones 503, closes idle connections.
  /// Returns true when all threads are done; false if some still sit in a handler after `grace`
  /// (they then hold the application: the process should exit without destroying it).
  bool stop(std::chrono::milliseconds grace);

  class State;

 private:
  explicit HttpServer(std::shared_ptr<State> state) : state_(std::move(state)) {}
  std::shared_ptr<State> state_;
};

}  // namespace aionbd
