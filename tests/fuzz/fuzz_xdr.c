/* SPDX-License-Identifier: BSD-3-Clause */
/* fuzz_xdr.c - every type that carries others, decoded from any bytes, and encoded again when that worked */
#include <stdint.h>
#include <stdlib.h>

#include "xdr/stream.h"
#include "xdr/xdr.h"

#define TYPES(X)                                                                                                       \
	X(COMPOUND4args) X(COMPOUND4res) X(CB_COMPOUND4args) X(CB_COMPOUND4res) X(fattr4) X(nfsv4_1_file_layout4)

#define TRY(type)                                                                                                      \
	static void try_##type(const uint8_t *data, size_t size)                                                       \
	{                                                                                                              \
		struct arena a;                                                                                        \
		struct xa_out out;                                                                                     \
		type v = {0};                                                                                          \
		XDR in;                                                                                                \
                                                                                                                       \
		arena_init(&a, 1 << 20);                                                                               \
		xa_in_init(&in, &a, data, size);                                                                       \
		xa_out_init(&out, &a, 1 << 18);                                                                        \
		if (xdr_##type(&in, &v))                                                                               \
			(void)xdr_##type(&out.x, &v);                                                                  \
		xa_out_fini(&out);                                                                                     \
		arena_fini(&a);                                                                                        \
	}
TYPES(TRY)

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size);

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size)
{
#define CALL(type) try_##type(data, size);
	TYPES(CALL)
	return 0;
}
