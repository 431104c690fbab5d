// A small HTTP/1.1 client for talking to an AIONBD server: one connection kept open, deadlines on
// every step, and patience with a server that is busy or restarting.
//
// Repeating is safe for everything this program sends: upserts are idempotent, the rest reads.
#pragma once

#include <atomic>
#include <chrono>
#include <cstdint>
#include <memory>
#include <optional>
#include <string>
#include <string_view>

#include "aionbd/status.h"
#include "base/rng.h"

namespace aionbd {

/// Where a server is. `http://host[:port][/prefix]`; an IPv6 host in brackets.
struct ServerUrl {
  std::string host = "127.0.0.1";
  std::string port = "8080";
  std::string prefix;  // "" or "/some/path", without a slash at the end

  /// "host:port" as a Host field wants it.
  std::string authority() const;
};

/// Errors: invalid_argument.
Result<ServerUrl> parse_server_url(std::string_view text);

struct ClientOptions {
  ServerUrl url;
  std::string api_key;       // sent as x-api-key when not empty
  std::string bearer_token;  // sent as Authorization: Bearer when not empty
  std::chrono::milliseconds connect_timeout{5000};
  /// From sending a request to the end of its answer.
  std::chrono::milliseconds timeout{60000};
  /// How long `call` keeps repeating a request that got no useful answer. 0 = never.
  std::chrono::milliseconds retry_for{60000};
};

struct ServerResponse {
  unsigned status = 0;
  std::string body;
  std::optional<std::chrono::seconds> retry_after;
};

/// The error an answer stands for: by its {"code","message"} body, else by its status line. Ok for
/// 2xx. Retryable ones are unavailable, resource_exhausted, deadline_exceeded and storage_full.
Status status_of(const ServerResponse& response);
/// Whether the same request may succeed later: 408, 429, 503, 507 and other 5xx gateways send.
bool is_retryable(const ServerResponse& response);

/// One connection. Thread safety: single owner.
class HttpClient {
 public:
  explicit HttpClient(ClientOptions options);
  ~HttpClient();
  HttpClient(const HttpClient&) = delete;
  HttpClient& operator=(const HttpClient&) = delete;

  /// One try: connects if needed, sends, reads the answer. `body` is sent as application/json
  /// unless the method is GET or DELETE and it is empty. Any answer of the server is a value, also
  /// 4xx and 5xx. Errors: unavailable (no connection, reset, timeout: the outcome is unknown).
  Result<ServerResponse> request(std::string_view method, std::string_view target,
                                 std::string_view body = {});

  /// `request`, repeated with growing pauses while the answer is retryable or missing, until
  /// `options.retry_for` has passed since the last sign of life or `*stop` becomes true. A
  /// Retry-After answer sets the pause. Returns the last answer.
  Result<ServerResponse> call(std::string_view method, std::string_view target,
                              std::string_view body = {}, const std::atomic<bool>* stop = nullptr);

  /// Times `call` had to repeat a request.
  uint64_t retries() const { return retries_; }

 private:
  class Connection;

  const ClientOptions options_;
  std::unique_ptr<Connection> connection_;
  Rng rng_;
  uint64_t retries_ = 0;
};

/// `text` with everything but letters, digits and "-._~" percent-encoded: one path segment.
std::string url_encoded(std::string_view text);

}  // namespace aionbd
