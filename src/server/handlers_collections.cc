// Handlers of collections: create, list, describe, delete, stats, optimize. Each is thin:
// decode, one public call, encode.
#include "server/context.h"
#include "server/handlers.h"

namespace aionbd {

Status handle_create_collection(Call& call) {
  ASSIGN_OR_RETURN(
      const CreateCollectionBody body,
      decode_create_collection(call.server.reader(), call.request.body, call.server.limits()));
  ASSIGN_OR_RETURN(Database * database, call.server.require_database());
  ASSIGN_OR_RETURN(const std::shared_ptr<Collection> collection,
                   database->create_collection(body.name, body.options, call.request.deadline));
  call.response.body = encode_collection(collection->info());
  return {};
}

Status handle_list_collections(Call& call) {
  ASSIGN_OR_RETURN(Database * database, call.server.require_database());
  call.response.body = encode_collections(database->list_collections());
  return {};
}

Status handle_get_collection(Call& call) {
  ASSIGN_OR_RETURN(const std::shared_ptr<Collection> collection,
                   call.server.collection(call.param(0)));
  call.response.body = encode_collection(collection->info());
  return {};
}

Status handle_delete_collection(Call& call) {
  ASSIGN_OR_RETURN(const std::string name, parse_collection_name(call.param(0)));
  ASSIGN_OR_RETURN(Database * database, call.server.require_database());
  RETURN_IF_ERROR(database->drop_collection(name, call.request.deadline));
  call.response.body = encode_collection_deleted(name);
  return {};
}

Status handle_collection_stats(Call& call) {
  ASSIGN_OR_RETURN(const std::shared_ptr<Collection> collection,
                   call.server.collection(call.param(0)));
  ASSIGN_OR_RETURN(const CollectionStats stats, collection->stats());
  call.response.body = encode_stats(stats);
  return {};
}

Status handle_optimize(Call& call) {
  ASSIGN_OR_RETURN(const std::shared_ptr<Collection> collection,
                   call.server.collection(call.param(0)));
  RETURN_IF_ERROR(collection->optimize());
  call.response.body = encode_optimized(collection->info().name);
  return {};
}

}  // namespace aionbd
