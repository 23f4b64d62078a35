/*
 * Addresses as the gRPC library wants them.
 */
#pragma once

#include "common/address.h"

#define RPC_ADDRESS_TARGET_BYTES 400

void rpc_address_target(const struct address *a, char target[RPC_ADDRESS_TARGET_BYTES]);
void rpc_address_listen_target(const struct address *a, char target[RPC_ADDRESS_TARGET_BYTES]);
