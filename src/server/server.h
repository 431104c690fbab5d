// The server: settings, engine and transport put together, and their end.
#pragma once

#include <cstdint>
#include <functional>
#include <memory>

#include "aionbd/database.h"
#include "aionbd/status.h"
#include "base/log.h"
#include "server/settings.h"

namespace aionbd {

/// Time a stop may take, start to end, before requests still in the engine are abandoned: container
/// runtimes kill after 10 seconds.
inline constexpr std::chrono::milliseconds kStopGrace{7000};

/// Thread safety: safe; the destructor has a single owner.
class Server {
 public:
  using DatabaseFactory = std::function<Result<std::unique_ptr<Database>>()>;

  /// Listens at once (so /live answers) and opens the database on a thread of its own; until that
  /// is done requests for work are answered 503 not_ready.
  /// Errors: invalid_argument (bind address), io_error (cannot listen).
  static Result<std::unique_ptr<Server>> start(const Settings& settings, DatabaseFactory factory,
                                               Logger logger);
  /// Stops first, if still running.
  ~Server();
  Server(const Server&) = delete;
  Server& operator=(const Server&) = delete;

  /// The port really bound.
  uint16_t port() const;
  bool ready() const;

  /// Asks wait() to stop the server. May be called at any time from any thread, not from a signal
  /// handler.
  void request_stop();
  /// Blocks until request_stop(), or until the database cannot be opened; then stops: no new
  /// connections, requests in progress finish, new ones are answered 503, the database is closed.
  /// Returns what opening the database said if it failed; deadline_exceeded if requests were still
  /// inside the engine after kStopGrace (the process should then exit at once, without destroying
  /// anything: the log is what makes that safe).
  Status wait();

 private:
  class State;
  explicit Server(std::unique_ptr<State> state);
  std::unique_ptr<State> state_;
};

}  // namespace aionbd
